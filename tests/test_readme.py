"""The two READMEs: equal line by line in all that is not language, and Vietnamese in the words of the market."""

import re
import unicodedata
from pathlib import Path

from tests import pairs
from vnq_colab.__main__ import FLAGS

HOUSE = Path(__file__).parent.parent
WORDS = {  # where the English README has the one, the Vietnamese has the other
    "basket": "rổ cổ phiếu", "equal-weighted universe": "thị trường bình quân đều",
    "rank correlation": "tương quan hạng", "drawdown": "mức sụt giảm từ đỉnh",
    "turnover": "vòng quay danh mục", "adjusted": "giá điều chỉnh",
    "fee": "phí", "tax on sales 0.1 %": "thuế bán 0,1%", "slippage": "trượt giá", "forecast": "dự báo", "symbol": "mã",
    "ceiling and floor": "giá trần và giá sàn", "reference price": "giá tham chiếu", "tick": "bước giá",
    "band around": "biên độ dao động giá", "round lots of 100": "lô chẵn 100", "settlement T+2": "thanh toán T+2",
    "ATO order": "lệnh ATO", "walk-forward": "kiểm thử cuốn chiếu", "exchange": "sàn giao dịch", "fills": "khớp lệnh",
    "buy": "MUA", "sell": "BÁN", "keep": "GIỮ", "thousand vnd": "nghìn đồng", "weights": "tỷ trọng", "held": "vị thế",
}


def read(name: str) -> str:
    return (HOUSE / name).read_text(encoding="utf-8")


ENGLISH, VIETNAMESE = read("README.md"), read("README.vi.md")


def lines(text: str) -> list[str]:
    """What is shown; the marks that the CI looks for are not."""
    return [line for line in text.splitlines() if line and not line.startswith("<!--")]


def kept(line: str, turn: dict[int, str] | None = None) -> list[str]:
    """What a line must have in both languages: its kind, code, links, pictures, and numbers written as in English."""
    kind = re.match(r"#+ |\||- |", line)[0]
    targets = re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\" width=\"(\d+)\"", line)
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)|<img.*|(?:Python |Apache-)[\d.]+", "", line)
    if turn:
        prose = re.sub(r"\b(\d\d)/(\d\d)/(\d{4})\b", r"\3-\2-\1", prose).translate(turn)
    numbers = re.findall(r"\d[\d.,:/-]*\d|\d", prose)
    return [kind, str(line.count("|")), *sorted(re.findall(r"`([^`]+)`", line)), *map(str, targets), *sorted(numbers)]


def test_readmes_are_equal_in_structure_commands_links_and_numbers():
    is_code = False
    turned = VIETNAMESE.replace("[English](README.md)", "[Tiếng Việt](README.vi.md)")
    for english, vietnamese in zip(lines(ENGLISH), lines(turned), strict=True):
        if english.startswith("```"):
            is_code = not is_code
        if is_code or english == "```":
            assert english.partition("  #")[0] == vietnamese.partition("  #")[0], vietnamese
        else:
            assert kept(english) == kept(vietnamese, str.maketrans(".,", ",.")), vietnamese


def test_readme_in_vietnamese_has_its_diacritics_and_no_advice():
    assert unicodedata.is_normalized("NFC", VIETNAMESE)
    prose = re.sub(r"(?s)```.*?```|`[^`]*`|\(.*?\)|<.*?>", "", VIETNAMESE)
    marked = sum(1 for letter in prose if letter.isalpha() and not letter.isascii())
    assert marked > 0.2 * sum(letter.isalpha() for letter in prose)
    assert "khuyến nghị" not in VIETNAMESE.lower()
    assert "Không phải lời khuyên" in VIETNAMESE and "Not advice" in ENGLISH
    alone = re.findall(r"(?<!giá )sàn(?! giao dịch)", VIETNAMESE)
    assert alone == [], "a floor is 'giá sàn', an exchange 'sàn giao dịch'"


def test_readme_in_vietnamese_uses_the_words_of_the_market():
    assert [word for word in WORDS if word.lower() not in ENGLISH.lower()] == [], "no longer there: take them out here"
    assert [word for word in WORDS.values() if word not in VIETNAMESE and word not in VIETNAMESE.lower()] == []


def test_readme_says_the_result_before_the_machinery_and_each_part_fits_on_a_screen():
    titles = re.findall(r"^## (.+)$", ENGLISH, re.MULTILINE)
    assert titles[:2] == ["What came out", "Try it"] and titles[-2:] == ["How it works", "Tests"]
    parts = re.split(r"^## .+$", ENGLISH, flags=re.MULTILINE)
    assert max(len(re.sub(r"\S+://\S+", "", part).split()) for part in parts) <= 260


def test_readme_names_every_command_every_notebook_and_only_flags_that_are_there():
    flags = {command.__name__: {*words.split(), "--help"} for command, words in FLAGS.items()}
    flags = {name: {flag.partition(":")[0] for flag in own} for name, own in flags.items()}
    before, _, after = ENGLISH.partition("## Commands")
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", after, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(flags)
    assert {path.stem for path in pairs.sources()} <= set(re.findall(r"^\| `(\w+)` \|", before, re.MULTILINE))
    for name, words in [*rows, *re.findall(r"`(\w+) (--[^`]+)`", ENGLISH)]:
        assert set(re.findall(r"--[a-z-]+\w", words)) <= flags[name], name


def test_readme_gives_results_that_were_written_down_and_links_that_lead_somewhere():
    table = ENGLISH.partition("## What came out")[2].partition("The 102 names")[0]
    kept = (HOUSE / "benchmarks/EXPERIMENTS.md").read_text(encoding="utf-8")
    measured = re.findall(r"\d+\.\d+", table)
    assert len(measured) >= 8 and [number for number in measured if number not in kept] == []
    links = re.findall(r"\]\((?!https:)([^)]+)\)", ENGLISH)
    assert links and [link for link in links if not (HOUSE / link).exists()] == []
