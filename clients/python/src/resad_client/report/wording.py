"""What a result means, in sentences: verdict, p-value, quality, normals, findings, index."""

from typing import Final

from resad_client.records import Evidence, Finding, Result
from resad_client.text import counted

_CLOSE: Final = 0.1
"""A score is close to the threshold within this share of it."""
_QUALITY: Final = {
    "not-a-fundus-photograph": "it does not look like a photograph of a retina",
    "no-field-of-view": "no field of view was found",
    "cut-off": "its field of view is cut off",
    "too-dark": "it is too dark",
    "too-bright": "it is too bright",
    "low-contrast": "its contrast is low",
    "blurred": "it is blurred",
    "not-in-color": "it is gray or red-free",
    "channels-swapped": "its color channels are swapped",
    "low-resolution": "its resolution is too low",
}
_SOURCES: Final = {
    "left-out": " of the index, each scored without itself",
    "separate": " outside the index, which it was calibrated on",
}
_DOUBTS: Final = {"at-edge": "at the edge of what was scored", "few-pixels": "very few pixels"}


def verdict(result: Result) -> str:
    """The verdict in two words or three; a question mark if the photograph's quality makes it doubtful."""
    words = {True: "abnormal", False: "not abnormal", None: "no verdict"}[result.abnormal]
    return words if result.quality.acceptable else f"{words}?"


def score_sentence(result: Result) -> str:
    """The image score beside the threshold, and what a score below it does not mean."""
    score, limit = result.image_score, result.threshold
    if limit is None:
        return f"The image score is {score:#.4g}. There is no verdict: {result.reason or 'no reason was given'}."
    if result.abnormal:
        text = f"The image score {score:#.4g} is above the threshold {limit:#.4g}."
    else:
        text = (
            f"The image score {score:#.4g} is not above the threshold {limit:#.4g}. That is no all-clear: small "
            "and pale lesions are missed."
        )
    if abs(score - limit) <= _CLOSE * limit:
        text += " It is close to the threshold: another photograph of this eye may come out on the other side."
    return text


def p_value_sentence(result: Result) -> str:
    """The p-value as the number of healthy photographs that score as high."""
    p_value, normals = result.p_value, result.normals.photos
    if p_value is None:
        return "There is no p-value."
    higher = _as_high(p_value, normals)
    if higher == 0:
        return (
            f"None of the {counted(normals, 'healthy photograph')} scores as high: p = 1/{normals + 1} = "
            f"{p_value:.3g}, the smallest value that so many photographs can give."
        )
    return (
        f"{higher} of the {counted(normals, 'healthy photograph')} {'scores' if higher == 1 else 'score'} as high "
        f"or higher: p = {higher + 1}/{normals + 1} = {p_value:.3g}."
    )


def normals_sentence(result: Result) -> str:
    """The photographs that the score was compared with, and the rate that the threshold stands for."""
    normals = result.normals
    origin = _SOURCES.get(normals.source or "", "")
    camera = f" of the camera {normals.camera}" if normals.camera else ""
    text = f"Compared with {counted(normals.photos, 'healthy photograph')}{camera}{origin}."
    if result.threshold is not None:
        text += f" The threshold is meant to call {_percent(result.fpr)} of such healthy photographs abnormal"
        rate = normals.rate
        text += f" (95 % interval: {_percent(rate.low)} to {_percent(rate.high)})." if rate else "."
    return f"{text} {normals.reason[:1].upper()}{normals.reason[1:]}." if normals.reason else text


def quality_sentence(result: Result) -> str:
    """Whether the photograph is like those of the index, or is one of them."""
    sentence = _quality_sentence(result)
    return f"{sentence} The photograph is {result.same_as}." if result.same_as else sentence


def _quality_sentence(result: Result) -> str:
    if result.quality.acceptable:
        return "Quality: like the photographs of the index."
    reasons = ", ".join(_QUALITY.get(reason, reason.replace("-", " ")) for reason in result.quality.reasons)
    return f"Quality: not like the photographs of the index ({reasons}). Verdict and findings may be wrong."


def findings_sentence(result: Result) -> str:
    """How many findings there are, and what counts as one."""
    level, rate = result.normals.finding_level, result.normals.false_regions
    if level is None:
        return "Findings cannot be told: there are too few healthy photographs for a level."
    often = f", which {rate:g} regions of a healthy photograph pass on average" if rate is not None else ""
    if not result.findings:
        return f"No findings: no region of the map is above {level:#.4g}{often}."
    text = f"{counted(len(result.findings), 'finding')}: regions of the map above {level:#.4g}{often}."
    if any(finding.resembles for finding in result.findings):
        text += " Like: nearest to examples that readers have marked; a resemblance, no diagnosis."
    return text


def index_sentence(result: Result) -> str:
    """The index that answered."""
    index = result.index
    return f"Index {index.name}, version {index.version}, trunk {index.backbone}, {index.fingerprint[:18]}."


def finding_p_value(finding: Finding, normals: int) -> str:
    """How many healthy photographs have a point as high."""
    return f"{_as_high(finding.p_value, normals) or 'none'} of {normals}"


def _as_high(p_value: float, normals: int) -> int:
    """How many of the normals are as high: p = (1 + they) / (1 + all)."""
    return max(0, round(p_value * (normals + 1)) - 1)


def finding_strength(finding: Finding, result: Result) -> str:
    """The peak, and how many times the level of findings it is."""
    level = result.normals.finding_level
    return f"{finding.peak:#.4g}" + (f" ({finding.peak / level:.1f} x level)" if level else "")


def finding_size(finding: Finding) -> str:
    """The share of the scored field of view."""
    percent = 100 * finding.area_share
    return f"{percent:.2g} %" if percent >= 0.01 else "under 0.01 %"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 1 else "100 %"


def finding_doubts(finding: Finding) -> str:
    """Why the finding may be none; empty if nothing is known against it."""
    return ", ".join(_DOUBTS.get(doubt, doubt.replace("-", " ")) for doubt in finding.doubts)


def finding_place(finding: Finding) -> str:
    """The place, and what is to be known of the finding: why it may be none, and what it resembles."""
    resemblance = str(finding.resembles) if finding.resembles else ""
    remarks = "; ".join(filter(None, [finding_doubts(finding), resemblance]))
    return ": ".join(filter(None, [finding.place or "-", remarks]))


def patch_caption(patch: Evidence) -> str:
    """Whether a patch beside a finding is of a healthy photograph, or what a reader called it."""
    return f"{_marked(patch) or 'healthy'}: {patch.photo}"


def evidence_words(finding: Finding) -> str:
    """The nearest healthy patches: ids of photographs and distances."""
    return "; ".join(
        f"{patch.photo} at {patch.distance:#.3g}" + "".join(f" ({remark})" for remark in _remarks(patch))
        for patch in finding.evidence
    )


def _remarks(patch: Evidence) -> list[str]:
    return [remark for remark in (_marked(patch), "mirrored" if patch.mirrored else "") if remark]


def _marked(patch: Evidence) -> str:
    return f"marked {patch.label.replace('-', ' ')}" if patch.label else ""
