"""ECG exports as devices write them, made by hand, each with a person in its header; tests damage their text or bytes.

Structures follow UK Biobank's field 20205 (CardioSoft), MUSE's restecg.dtd, HL7's aECG guide and EN 1064 (SCP-ECG).
"""

import base64
import binascii
import struct
import zlib

import numpy as np

from ecgcmr.signals import ecg

FIRST, LAST, ID = "Zacharias", "Quillfeather", "MRN-77001234"
CLINIC, DOCTOR, SERIAL, STATEMENT = (
    "St Erkenwald",
    "Pemberton",
    "SN889XQ",
    "Sinus rhythm, probable Brugada",
)
# What must not leave a reader: names, numbers, places, devices, statements, and dates in every spelling used below.
SECRETS = (
    FIRST,
    LAST,
    ID,
    CLINIC,
    DOCTOR,
    SERIAL,
    "Brugada",
    "1951",
    "23",
    "2019",
    "0217",
    "02-17",
    "14:35",
    "M\xfcller",
)
AGE = 67  # from 23 April 1951 to 17 February 2019


def beats(seed=0, samples=5000, rate=500):
    """Lawful leads in mV, (12, samples) in standard order, 0.9 mV high."""
    t = np.arange(samples) / rate
    wave = np.exp(-0.5 * (((t * 1.2) % 1 - 0.4) / 0.03) ** 2) - 0.3 * np.exp(
        -0.5 * (((t * 1.2) % 1 - 0.7) / 0.05) ** 2
    )
    noise = np.random.default_rng(seed).normal(0, 0.02, (8, samples))
    one, two = 0.6 * wave + noise[0], 0.9 * wave + noise[1]
    chest = [size * wave + n for size, n in zip((-0.8, -0.6, 0.7, 1.1, 1.0, 0.8), noise[2:])]
    return np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest])


def cardiosoft(signal, leads=ecg.LEADS, step=5.0, rate=500):
    """UK Biobank's file; counts are `signal` in mV by `step` µV, broken into lines with tabs."""
    waves = "".join(
        f'\t\t<WaveformData lead="{lead}">\n\t\t{_lines(row * 1000 / step)}\n\t\t</WaveformData>\n'
        for lead, row in zip(leads, signal)
    )
    median = "".join(
        f'<WaveformData lead="{lead}">{_lines(np.zeros(600))}</WaveformData>' for lead in leads
    )
    return f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<CardiologyXML>
  <ObservationType>RestECG</ObservationType>
  <ObservationDateTime><Hour>14</Hour><Minute>35</Minute><Second>9</Second><Day>17</Day><Month>2</Month>
    <Year>2019</Year></ObservationDateTime>
  <UID><DICOMStudyUID>1.2.276.{ID}</DICOMStudyUID></UID>
  <ClinicalInfo><ReasonForStudy>{STATEMENT}</ReasonForStudy>
    <Technician><FamilyName>M\xfcller</FamilyName><PersonID>{ID}</PersonID></Technician>
    <DeviceInfo><Desc>{SERIAL}</Desc></DeviceInfo></ClinicalInfo>
  <PatientVisit><OrderingProvider><FamilyName>{DOCTOR}</FamilyName></OrderingProvider>
    <ServicingFacility><Name>{CLINIC}</Name></ServicingFacility></PatientVisit>
  <PatientInfo><PID>{ID}</PID><Name><FamilyName>{LAST}</FamilyName><GivenName>{FIRST}</GivenName></Name>
    <Age units="years">{AGE}</Age><BirthDateTime><Day>23</Day><Month>4</Month><Year>1951</Year></BirthDateTime>
    <Gender>FEMALE</Gender><Height units="cm">168</Height><Weight units="kg">71</Weight></PatientInfo>
  <FilterSetting><CubicSpline>no</CubicSpline><Filter50Hz>yes</Filter50Hz><Filter60Hz>no</Filter60Hz>
    <LowPass units="Hz">100</LowPass><HighPass units="Hz">0.05</HighPass></FilterSetting>
  <Interpretation><Diagnosis><DiagnosisText>{STATEMENT}</DiagnosisText></Diagnosis></Interpretation>
  <RestingECGMeasurements><MedianSamples><NumberOfLeads>{len(leads)}</NumberOfLeads>
    <SampleRate units="Hz">1000</SampleRate><ChannelSampleCountTotal>600</ChannelSampleCountTotal>
    <Resolution units="uVperLsb">1</Resolution>{median}</MedianSamples></RestingECGMeasurements>
  <StripData>
\t\t<NumberOfLeads>{len(leads)}</NumberOfLeads>
\t\t<SampleRate units="Hz">{rate}</SampleRate>
\t\t<ChannelSampleCountTotal>{signal.shape[1]}</ChannelSampleCountTotal>
\t\t<Resolution units="uVperLsb">{step:g}</Resolution>
{waves}  </StripData>
</CardiologyXML>
""".encode("latin-1")


def _lines(counts):
    words = [str(int(count)) for count in np.round(counts)]
    return ",\n\t\t".join(",".join(words[i : i + 40]) for i in range(0, len(words), 40))


EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def muse(signal, leads=EIGHT, step=4.88, base=500, exponent=0):
    """A MUSE export with the rows of `signal`, mV, that `leads` names, after a median beat at another rate."""
    rows = dict(zip(ecg.LEADS, signal))
    rhythm = [(lead, np.round(rows[_standard(lead)] * 1000 / step)) for lead in leads]
    median = [(lead, np.zeros(600)) for lead in leads]
    return f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<!DOCTYPE RestingECG SYSTEM "restecg.dtd">
<RestingECG>
  <MuseInfo><MuseVersion>9.0.7.17363</MuseVersion></MuseInfo>
  <PatientDemographics><PatientID>{ID}</PatientID><PatientAge>{AGE}</PatientAge><AgeUnits>YEARS</AgeUnits>
    <DateofBirth>04-23-1951</DateofBirth><Gender>FEMALE</Gender><PatientLastName>{LAST}</PatientLastName>
    <PatientFirstName>{FIRST}</PatientFirstName></PatientDemographics>
  <TestDemographics><SiteName>{CLINIC}</SiteName><AcquisitionDevice>{SERIAL}</AcquisitionDevice>
    <OverreaderLastName>{DOCTOR}</OverreaderLastName><AcquisitionTime>14:35:09</AcquisitionTime>
    <AcquisitionDate>02-17-2019</AcquisitionDate></TestDemographics>
  <Diagnosis><DiagnosisStatement><StmtText>{STATEMENT}</StmtText></DiagnosisStatement></Diagnosis>
{_waveform("Median", median, 1000, 0, step)}{_waveform("Rhythm", rhythm, base, exponent, step)}</RestingECG>
""".encode("latin-1")


def _standard(lead):
    return ecg.lead_name(lead)


def _waveform(kind, rows, base, exponent, step):
    leads = "".join(_lead(name, counts.astype("<i2").tobytes(), step) for name, counts in rows)
    return f"""  <Waveform><WaveformType>{kind}</WaveformType><WaveformStartTime>0</WaveformStartTime>
    <NumberofLeads>{len(rows)}</NumberofLeads><SampleType>CONTINUOUS_SAMPLES</SampleType>
    <SampleBase>{base}</SampleBase><SampleExponent>{exponent}</SampleExponent>
    <HighPassFilter>16</HighPassFilter><LowPassFilter>150</LowPassFilter><ACFilter>60</ACFilter>
{leads}  </Waveform>
"""


def _lead(name, payload, step):
    text = base64.encodebytes(payload).decode()
    return f"""    <LeadData><LeadByteCountTotal>{len(payload)}</LeadByteCountTotal><LeadTimeOffset>0</LeadTimeOffset>
      <LeadSampleCountTotal>{len(payload) // 2}</LeadSampleCountTotal>
      <LeadAmplitudeUnitsPerBit>{step}</LeadAmplitudeUnitsPerBit>
      <LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits><LeadHighLimit>32767</LeadHighLimit>
      <LeadLowLimit>-32768</LeadLowLimit><LeadID>{name}</LeadID><LeadOffsetFirstSample>0</LeadOffsetFirstSample>
      <FirstSampleBaseline>0</FirstSampleBaseline><LeadSampleSize>2</LeadSampleSize><LeadOff>FALSE</LeadOff>
      <LeadDataCRC32>{zlib.crc32(payload)}</LeadDataCRC32><WaveFormData>
{text}</WaveFormData></LeadData>
"""


def aecg(signal, leads=ecg.LEADS, step=2.5, increment="0.002", origin=0):
    """An aECG with a rhythm series and a representative beat derived from it."""
    rows = [
        (f"MDC_ECG_LEAD_{lead}", np.round((row * 1000 - origin) / step))
        for lead, row in zip(leads, signal)
    ]
    flat = [(name, np.zeros(600)) for name, _ in rows]
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!-- exported for {LAST} -->
<AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" type="Observation">
  <id root="{ID}"/><code code="93000" codeSystem="2.16.840.1.113883.6.12"/>
  <text>{STATEMENT}</text>
  <effectiveTime><low value="20190217143509"/><high value="20190217143519"/></effectiveTime>
  <componentOf><timepointEvent><componentOf><subjectAssignment><subject><trialSubject><id extension="{ID}"/>
    <subjectDemographicPerson><name>{LAST}</name><administrativeGenderCode code="F"/>
      <birthTime value="19510423"/></subjectDemographicPerson></trialSubject></subject>
    <componentOf><clinicalTrial><title>{CLINIC}</title><responsibleParty><trialInvestigator><investigatorPerson>
      <name>{DOCTOR}</name></investigatorPerson></trialInvestigator></responsibleParty></clinicalTrial></componentOf>
  </subjectAssignment></componentOf></timepointEvent></componentOf>
  <controlVariable><relatedObservation><code code="21612-7" codeSystem="2.16.840.1.113883.6.1"/>
    <value xsi:type="PQ" value="{AGE}" unit="a"/></relatedObservation></controlVariable>
  <component><series><code code="RHYTHM"/><effectiveTime><low value="20190217143509"/></effectiveTime>
    <author><seriesAuthor><manufacturedSeriesDevice><id extension="{SERIAL}"/></manufacturedSeriesDevice></seriesAuthor>
    </author>
    {_set("TIME_ABSOLUTE", '<head value="20190217143509.000"/>', "GLIST_TS", increment, rows, step, origin)}
    <derivation><derivedSeries><code code="REPRESENTATIVE_BEAT"/>
    {_set("TIME_RELATIVE", '<head value="0.0" unit="s"/>', "GLIST_PQ", "0.001", flat, step, 0)}
    </derivedSeries></derivation></series></component>
</AnnotatedECG>
""".encode()


def _set(clock, head, kind, increment, rows, step, origin):
    leads = "".join(
        f"""<component><sequence><code code="{name}" codeSystem="2.16.840.1.113883.6.24"/>
      <value xsi:type="SLIST_PQ"><origin value="{origin}" unit="uV"/><scale value="{step}" unit="uV"/>
      <digits>{" ".join(str(int(count)) for count in counts)}</digits></value></sequence></component>
"""
        for name, counts in rows
    )
    return f"""<component><sequenceSet><component><sequence><code code="{clock}"/><value xsi:type="{kind}">{head}
      <increment value="{increment}" unit="s"/></value></sequence></component>
{leads}</sequenceSet></component>"""


SCP_CODES = {
    "I": 1,
    "II": 2,
    **{f"V{i}": 2 + i for i in range(1, 7)},
    "III": 61,
    "aVR": 62,
    "aVL": 63,
    "aVF": 64,
    "-aVR": 65,
}
# Two tables (EN 1064, section 2): 0 is 0, 10 and eight bits, 11 goes to the second; there 0 and sixteen bits, 1 goes back.
TWO_TABLES = (
    ((1, 1, 1, 0, 0b0), (2, 10, 1, 0, 0b01), (2, 2, 0, 2, 0b11)),
    ((1, 17, 1, 0, 0), (1, 1, 0, 1, 1)),
)


def scp(
    signal,
    leads=EIGHT,
    *,
    code="default",
    differences=2,
    subtract=False,
    bimodal=0,
    starts=None,
    avm=2500,
    stated=None,
):
    """An SCP-ECG record of the rows of `signal`, mV, that `leads` names; counts by `avm` nV.

    Args:
        code: Huffman code: "default", "two" (`TWO_TABLES`) or "none" (16 bits).
        differences: 0, 1 or 2.
        subtract: take a beat (of twice the AVM) out of four places, to be put back by the decoder.
        bimodal: the flag of section 6.
        starts: first sample of each lead, from 1.
        stated: what section 6 states as its AVM, where that is not `avm`.
    """
    rows = {lead: np.round(row * 1e6 / avm).astype(int) for lead, row in zip(ecg.LEADS, signal)}
    rows["-aVR"] = -rows["aVR"]
    counts = [rows[lead] for lead in leads]
    beat = np.round(60 * np.hanning(300)).astype(int)
    zones = [(at - 99, at, at + 150) for at in (600, 1500, 2400, 4000)]
    if subtract:
        counts = [_subtracted(row, 2 * beat, zones) for row in counts]
    first = starts or [1] * len(counts)
    three = bytes([len(counts), (1 if subtract else 0) | 4 | (len(counts) % 32) << 3])
    three += b"".join(
        struct.pack("<IIB", at, at + len(row) - 1, SCP_CODES[lead])
        for at, row, lead in zip(first, counts, leads)
    )
    four = struct.pack("<HHH", 600, 120, len(zones)) + b"".join(
        struct.pack("<HIII", 0, *zone) for zone in zones
    )
    four += b"".join(struct.pack("<II", zone[0], zone[2]) for zone in zones)
    tables = {"default": struct.pack("<H", 19999), "two": _tables(TWO_TABLES)}
    sections = {
        1: _person(),
        3: three,
        4: four,
        5: _data([beat] * len(counts), code, differences, 2 * avm, 0),
        6: _data(counts, code, differences, avm if stated is None else stated, bimodal),
        8: _statements(),
    }
    if code in tables:
        sections[2] = tables[code]
    return _record(sections)


def _subtracted(row, beat, zones):
    """Section 4's fiducial of the beat is sample 120; sample n of the rhythm meets n − fiducial + 120 of the beat."""
    out = row.copy()
    for start, fiducial, end in zones:
        for n in range(start, end + 1):
            m = n - fiducial + 120
            if 1 <= m <= len(beat):
                out[n - 1] -= beat[m - 1]
    return out


def _data(rows, code, differences, avm, flag):
    packed = [_packed(np.concatenate(_differences(row, differences)), code) for row in rows]
    head = struct.pack("<HHBB", avm, 2000, differences, flag)
    return head + b"".join(struct.pack("<H", len(data)) for data in packed) + b"".join(packed)


def _differences(row, order):
    return {0: [row], 1: [row[:1], np.diff(row)], 2: [row[:2], np.diff(row, n=2)]}[order]


def _packed(values, code):
    if code == "none":
        return values.astype("<i2").tobytes()
    bits = "".join(map(_default_bits if code == "default" else _two_bits, values.tolist()))
    bits += "0" * (-len(bits) % 16)
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "big")[1:]


def _default_bits(value):
    size = abs(value)
    if size <= 8:
        return "1" * size + "0" + str(int(value < 0)) * (size > 0)
    return (
        f"1111111110{value & 0xFF:08b}"
        if -128 <= value < 128
        else f"1111111111{value & 0xFFFF:016b}"
    )


def _two_bits(value):
    if value == 0:
        return "0"
    return f"10{value & 0xFF:08b}" if -128 <= value < 128 else f"110{value & 0xFFFF:016b}1"


def _tables(tables):
    packed = [b"".join(struct.pack("<BBBhI", *line) for line in table) for table in tables]
    return struct.pack("<H", len(tables)) + b"".join(
        struct.pack("<H", len(t) // 9) + t for t in packed
    )


def _person():
    device = (
        struct.pack("<HHHBB", 1, 2, 3, 0, 255)
        + b"SN889X"
        + bytes([20, 0xA0, 0, 0xF0, 1])
        + bytes(16)
    )
    device += b"\0" + b"".join(
        word.encode() + b"\0" for word in ("prog", SERIAL, "soft", "impl", CLINIC)
    )
    tags = [
        (0, LAST.encode() + b"\0"),
        (1, FIRST.encode() + b"\0"),
        (2, ID.encode() + b"\0"),
        (4, struct.pack("<HB", AGE, 1)),
        (5, struct.pack("<HBB", 1951, 4, 23)),
        (8, b"\2"),
        (14, device),
        (16, CLINIC.encode() + b"\0"),
        (20, DOCTOR.encode() + b"\0"),
        (25, struct.pack("<HBB", 2019, 2, 17)),
        (26, bytes([14, 35, 9])),
        (30, STATEMENT.encode() + b"\0"),
    ]
    return (
        b"".join(struct.pack("<BH", tag, len(value)) + value for tag, value in tags) + b"\xff\0\0"
    )


def _statements():
    text = STATEMENT.encode() + b"\0"
    return (
        bytes([1])
        + struct.pack("<HBB", 2019, 2, 17)
        + bytes([14, 35, 9, 1])
        + struct.pack("<BH", 1, len(text))
        + text
    )


def _record(sections):
    sizes = {
        0: 16 + 10 * 12,
        **{number: 16 + len(body) + len(body) % 2 for number, body in sections.items()},
    }
    at, pointers = 7, b""
    for number in range(12):
        size = sizes.get(number, 0)
        pointers += struct.pack("<HII", number, size, at if size else 0)
        at += size
    whole = _section(0, pointers, b"SCPECG")
    for number in sorted(sections):
        whole += _section(number, sections[number] + bytes(len(sections[number]) % 2), bytes(6))
    whole = struct.pack("<I", len(whole) + 6) + whole
    return struct.pack("<H", binascii.crc_hqx(whole, 0xFFFF)) + whole


def _section(number, body, reserved):
    section = struct.pack("<HIBB", number, 16 + len(body), 20, 20) + reserved + body
    return struct.pack("<H", binascii.crc_hqx(section, 0xFFFF)) + section


# --- Philips

PULSE = np.r_[np.zeros(300), np.ones(100), np.zeros(100)]  # mV, behind 10 s in every lead


def philips(signal, packed=True, version="1.04", step=5.0, rate=500):
    """A PageWriter's XML: `signal` in mV and the calibration pulse, in Base64, packed as XLI or not."""
    counts = np.round(np.hstack([signal, np.tile(PULSE, (12, 1))]) * 1000 / step).astype(np.int64)
    if packed:
        one, two = counts[:2].copy()
        three, right, left, foot = counts[2:6]
        counts[2:6] = (
            two - one - three,
            -right - (one + two) // 2,
            (one - three) // 2 - left,
            (two + three) // 2 - foot,
        )
        payload = b"".join(_xli(row) for row in counts)
    else:
        payload = counts.astype("<i2").tobytes()
    duration = 1000 * counts.shape[1] // rate
    names, kind = " ".join(ecg.LEADS), "PhilipsECG"
    facts = (
        f'numberofleads="12" leadlabels="{names}" samplespersecond="{rate}" resolution="{step:g}" '
    )
    facts += 'signaloffset="0" signalsigned="True" bitspersample="16" hipass="0.05" lowpass="150" '
    facts += 'compression="XLI"' if packed else 'compression="Uncompressed"'
    own = f"<samplingrate>{rate}</samplingrate><signalresolution>{step:g}</signalresolution>"
    if version == "1.03":
        kind, facts = "SierraECG", 'compressflag="True" compressmethod="XLI" nbitspersample="16"'
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<restingecgdata xmlns="http://www3.medical.philips.com">
<documentinfo><documentname>{ID}.xml</documentname><documenttype>{kind}</documenttype>
<documentversion>{version}</documentversion></documentinfo>
<dataacquisition date="2019-02-17" time="14:35:09"><machine machineid="{SERIAL}">PageWriter</machine>
<acquirer><institutionname>{CLINIC}</institutionname></acquirer><signalcharacteristics>{own}
<acquisitiontype>STD-12</acquisitiontype><leadset>STD-12</leadset>
<numberchannelsallocated>12</numberchannelsallocated></signalcharacteristics></dataacquisition>
<patient><generalpatientdata><patientid>{ID}</patientid><name><lastname>{LAST}</lastname>
<firstname>{FIRST}</firstname></name><age><years>{AGE}</years><dateofbirth>1951-04-23</dateofbirth></age>
<sex>Female</sex></generalpatientdata></patient>
<interpretations><interpretation><statement><leftstatement>{STATEMENT}</leftstatement></statement>
</interpretation></interpretations>
<waveforms><parsedwaveforms dataencoding="Base64" durationperchannel="{duration}" {facts}>
{base64.encodebytes(payload).decode()}</parsedwaveforms></waveforms>
</restingecgdata>
""".encode()


def _xli(row):
    """A chunk of one lead: two samples as they are, then second differences, high bytes first, in LZW."""
    bends = 2 * row[1:-1] - row[:-2] - row[2:]
    words = np.r_[row[:2], bends[1:] + 64, 64].astype(">i2")
    halves = words.view("u1").reshape(-1, 2)
    body = _lzw(halves[:, 0].tobytes() + halves[:, 1].tobytes())
    return struct.pack("<ihh", len(body), 0, int(bends[0])) + body


def _lzw(content, bits=10):
    """Codes of ten bits, the first bit first; the table stays as it is once it is full."""
    table = {bytes([i]): i for i in range(256)}
    codes, word = [], b""
    for byte in content:
        longer = word + bytes([byte])
        if longer in table:
            word = longer
            continue
        codes.append(table[word])
        if len(table) < (1 << bits) - 1:
            table[longer] = len(table)
        word = bytes([byte])
    codes.append(table[word])
    stream = "".join(f"{code:0{bits}b}" for code in codes)
    stream += "0" * (-len(stream) % 8)
    return bytes(int(stream[i : i + 8], 2) for i in range(0, len(stream), 8))


# --- Mortara


def mortara(signal, leads=ecg.LEADS, units=400, rate=500):
    """An ELI export; counts are `signal` in mV by `units` per mV. The typical beat has a rate and gain of its own."""
    channels = "".join(
        f'  <CHANNEL OFFSET="0" BITS="16" FORMAT="SIGNED" UNITS_PER_MV="{units}" DURATION="{len(row)}" '
        f'SAMPLE_FREQ="{rate}" NAME="{lead}" ENCODING="BASE64" DATA="{_words(row * units)}" />\n'
        for lead, row in zip(leads, signal)
    )
    beat = "".join(
        f'    <TYPICAL_CYCLE_CHANNEL NAME="{lead}" DATA="{_words(np.zeros(300))}" />\n'
        for lead in leads
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<ECG ACQUISITION_TIME="20190217143509" VENT_RATE="72" NUM_QRS="12" AGE="{AGE}" AGE_UNITS="YEARS" ROOM="{CLINIC}">
  <SOURCE TYPE="RESTING" MANUFACTURER="MORTARA" MODEL="ELI 280" ACQUIRING_DEVICE_SERIAL_NUMBER="{SERIAL}" />
  <SUBJECT LAST_NAME="{LAST}" FIRST_NAME="{FIRST}" ID="{ID}" GENDER="Female" DOB="19510423" />
  <AUTOMATIC_INTERPRETATION><STATEMENT TEXT="{STATEMENT}" REASON="" /></AUTOMATIC_INTERPRETATION>
  <TYPICAL_CYCLE BITS="16" FORMAT="SIGNED" UNITS_PER_MV="200" DURATION="300" SAMPLE_FREQ="250" ENCODING="BASE64">
{beat}  </TYPICAL_CYCLE>
{channels}</ECG>
""".encode()


def _words(counts):
    return base64.b64encode(np.round(counts).astype("<i2").tobytes()).decode()
