"""Prior prices of text compared with real token counts of public vocabularies."""

# ruff: noqa: RUF001  (letters of many scripts look alike)

import pytest

from extproc.core.estimator.codes import BUCKETS
from extproc.core.estimator.prices import TEXT_PRICES
from extproc.core.estimator.text import OF_SCRIPTS, OF_UNREPEATED, look

# Texts of each kind and script (most are from Article 1 of the Universal Declaration of Human Rights), with their
# token counts: the mean of cl100k, o200k, Qwen 3.6 and DeepSeek V3.
TOKENS = (
    (
        (
            "The committee will meet on Thursday to discuss the budget, "
            "and everyone is welcome to attend the session in the main hall afterwards."
        ),
        25,
    ),
    (
        (
            "def total(items):\n    count = 0\n    for item in items:\n"
            "        if item.price > 10:\n            count += item.price\n    return count\n"
        ),
        35,
    ),
    (
        '{"id":1042,"name":"Anna","tags":["a","b"],"active":true,"score":97.5,"address":{"city":"Bern","zip":"3011"}}',
        39.25,
    ),
    ("2024-03-07 11:52:09,318 INFO [worker-7] GET /api/v2/items?id=99182 200 1873 bytes 42 ms\n", 44.5),
    ("Größere Übungen für geübte Bäcker; où êtes-vous allés l'été passé à Bézières?", 27.5),
    ("Zażółć gęślą jaźń; příliš žluťoučký kůň úpěl ďábelské ódy", 33.75),
    ("Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια", 35.25),
    ("Все люди рождаются свободными и равными в своём достоинстве и правах", 22.75),
    ("Բոլոր մարդիկ ծնվում են ազատ ու հավասար", 31.75),
    ("כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם", 30),
    ("يولد جميع الناس أحرارا متساوين في الكرامة والحقوق", 20.75),
    ("सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता", 36),
    ("সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে", 37.75),
    ("ਸਾਰਾ ਮਨੁੱਖੀ ਪਰਿਵਾਰ ਆਪਣੀ ਮਹਿਮਾ", 28.5),
    ("પ્રતિષ્ઠા અને અધિકારોની દૃષ્ટિએ સર્વ માનવો", 39.5),
    ("ସବୁ ମନୁଷ୍ୟ ଜନ୍ମକାଳରୁ ସ୍ୱାଧୀନ", 39.25),
    ("மனிதப் பிறிவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்", 36.75),
    ("ప్రతిపత్తిస్వత్వముల విషయమున మానవులెల్లరును", 38.75),
    ("ಎಲ್ಲಾ ಮಾನವರೂ ಸ್ವತಂತ್ರರಾಗಿಯೇ ಜನಿಸಿದ್ದಾರೆ", 33.75),
    ("മനുഷ്യരെല്ലാവരും തുല്യാവകാശങ്ങളോടും അന്തസ്സോടും", 41.25),
    ("සියලු මනුෂ්‍යයෝ නිදහස්ව උපත ලබා ඇත", 36.5),
    ("มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์", 30.25),
    ("ມະນຸດທຸກຄົນເກີດມາມີກຽດສັກສີ", 46.5),
    ("འགྲོ་བ་མིའི་རིགས་རྒྱུད་ཡོངས་ལ་སྐྱེས་ཙམ་ཉིད་ནས", 69),
    ("လူတိုင်းသည် တူညီ လွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့်", 44.5),
    ("ყველა ადამიანი იბადება თავისუფალი და თანასწორი", 39.25),
    ("የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው", 78),
    ("មនុស្សទាំងអស់កើតមកមានសេរីភាព", 30.75),
    ("すべてのにんげんは、うまれながらにしてじゆうである", 19.5),
    ("人人生而自由,在尊严和权利上一律平等,他们赋有理性和良心", 23.25),
    ("모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다", 27.5),
    ("⠓⠑⠇⠇⠕⠀⠺⠕⠗⠇⠙", 28.5),
    ("😀🎉🚀🌍🔥👍🐶🍕", 18),
    ("ABC,123!?", 4.75),
)
# Short texts for which these four tokenizers disagree with the prior.
ROUGHLY = (
    ("WARNING: DO NOT OPEN THIS DOOR WHILE THE MACHINE IS RUNNING. AUTHORISED STAFF ONLY.", 22),
    ("one\n\ntwo\n\nthree\n\nfour\n\n", 8),
    (
        "name" + " " * 64 + "value" + "-" * 64,
        4,
    ),
    ("Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền", 25.5),
    ("┌────┐│ab│└────┘", 13),
    ("→ ∀x∈ℝ: ∑ ≤ ∞ € ₹ ☀ ✓", 17),
    ("He said “yes” — and then “no” – twice…", 14),
)


def prior_tokens(text: str) -> float:
    """Return the estimated cost of a text before any response was observed."""
    return float(look(text.encode()).dot(TEXT_PRICES))


@pytest.mark.parametrize(("text", "tokens"), TOKENS)
def test_a_new_model_is_assumed_to_be_like_public_ones(text: str, tokens: float) -> None:
    """The prior of a text in any script, prose or code is at most a quarter above the mean of
    four tokenizers, and at most half below it.

    If the four differ widely, the prior with the least error is below their mean.
    """
    assert 0.5 < prior_tokens(text) / tokens < 1.25


@pytest.mark.parametrize(("text", "tokens"), ROUGHLY)
def test_no_prior_is_off_by_a_factor_of_two(text: str, tokens: float) -> None:
    """Capitals, blank lines, padding, drawings and quotes are priced less
    accurately, but within a factor of two.
    """
    assert tokens / 2 < prior_tokens(text) < tokens * 2


def test_letter_pairs_move_a_price_by_a_little() -> None:
    """A pair of letters changes the price by at most two thirds of a token."""
    of_buckets = TEXT_PRICES[OF_SCRIPTS.stop : OF_UNREPEATED.start]
    assert BUCKETS == len(of_buckets)
    assert all(abs(price) <= 0.67 for price in of_buckets)


def test_a_character_costs_something_and_no_more_than_its_bytes() -> None:
    """No script has free characters, and no tokenizer makes more than four tokens of one character."""
    assert all(0 < price < 4 for price in TEXT_PRICES[OF_SCRIPTS])
