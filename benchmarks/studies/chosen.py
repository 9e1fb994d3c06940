"""Do the intervals of phenotypes hold where the people who calibrate them chose the network? Simulated, nothing is trained.

    python benchmarks/studies/chosen.py [--draws 300]

Prints a line of JSON per number of validation people and size of the grid. As in a study, the configuration is the one
whose best epoch scores best on the validation people, five seeds of it each keep the epoch that scores best on the same
people, and the residuals of their mean give the half width of the interval (wanted: 0.9 of new people's measurements lie in
it). `ours` is what `ecgcmr predict` states, `plain` split conformal at 0.9 of the same residuals, `unchosen` the same of
people who chose nothing. `coverage` is the mean over studies, `held` the share of studies with at least 0.9.

Six phenotypes of r about 0.6. What a network makes of a person is independent of all other epochs and configurations, so
there is more to choose from than in a training, where neighbouring epochs agree.
"""

import argparse
import itertools
import json

import numpy as np

from ecgcmr.evaluation import statistics
from ecgcmr.inference.calibration import CONFIDENCE, LEVEL

COLUMNS, SEEDS, EPOCHS, NEW = 6, 5, 40, 4000
SIGNAL, COMMON, OWN = (
    0.6,
    0.65,
    0.45,
)  # of a prediction: the truth, what all networks, what one makes of a person


def predicted(
    truth: np.ndarray, common: np.ndarray, networks: int, rng: np.random.Generator
) -> np.ndarray:
    """(networks, n, columns), all equally good."""
    return SIGNAL * truth + COMMON * common + OWN * rng.standard_normal((networks, *truth.shape))


def best(outputs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The network of the highest mean r over the phenotypes, (n, columns)."""
    a, b = (x - x.mean(-2, keepdims=True) for x in (outputs, truth))
    r = (a * b).sum(-2) / np.sqrt((a**2).sum(-2) * (b**2).sum(-2))
    return outputs[r.mean(-1).argmax()]


def study(n: int, configurations: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The share of new people's measurements in the interval, by way of calibrating, (columns,)."""
    truth, common = rng.standard_normal((2, 2 * n + NEW, COLUMNS))
    # The first seed is the grid's own run of the configuration that won.
    tried = [configurations * EPOCHS] + [EPOCHS] * (SEEDS - 1)
    chosen = [
        best(predicted(truth[:n], common[:n], networks, rng), truth[:n]) for networks in tried
    ]
    rest = predicted(truth[n:], common[n:], SEEDS, rng)
    outputs = np.concatenate([np.mean(chosen, 0), rest.mean(0)])
    slope = (rest.mean(0) * truth[n:]).sum() / (rest.mean(0) ** 2).sum()  # to the truth's unit
    calibrating, unused, new = np.split(np.abs(truth - slope * outputs), [n, 2 * n])
    ways = {
        "plain": (calibrating, LEVEL),
        "unchosen": (unused, LEVEL),
        "ours": (calibrating, statistics.assured(n, LEVEL, CONFIDENCE)),
    }
    return {
        way: np.mean(new <= [statistics.conformal(column, level) for column in rows.T], axis=0)
        for way, (rows, level) in ways.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=300, help="studies; fewer of large ones")
    args = parser.parse_args()
    rng = np.random.default_rng(2023)
    for people, configurations in itertools.product((60, 120, 400, 1500), (2, 24)):
        draws = max(30, min(args.draws, args.draws * 800 // (people * configurations)))
        studies = [study(people, configurations, rng) for _ in range(draws)]
        shares = {way: np.array([by_way[way] for by_way in studies]) for way in studies[0]}
        line = {
            way: {
                "coverage": round(float(share.mean()), 4),
                "held": round(float((share >= LEVEL).mean()), 3),
            }
            for way, share in shares.items()
        }
        head = {"benchmark": "chosen", "people": people, "configurations": configurations}
        print(json.dumps({**head, "draws": draws, **line}), flush=True)


if __name__ == "__main__":
    main()
