"""The `math` domain: seeded word problems with worked solutions. One seed, one document, on any machine."""

from collections.abc import Callable
from random import Random

NAMES = (
    "Maria", "Omar", "Lena", "Tomas", "Aisha", "Jonas", "Priya", "Mateo", "Ines", "Kofi", "Yuki", "Sven",
    "Nadia", "Pavel", "Chloe", "Hugo", "Amara", "Felix", "Ruth", "Diego", "Salma", "Anton", "Greta", "Malik",
    "Elena", "Oscar", "Fatima", "Bruno", "Hana", "Viktor",
)  # fmt: skip
GOODS = (
    "apples", "pencils", "stamps", "marbles", "books", "cookies", "tickets", "shells", "coins", "postcards",
    "oranges", "buttons", "candles", "stickers", "bottles", "magnets", "ribbons", "peaches", "lemons", "badges",
)  # fmt: skip
BOXES = ["bags", "boxes", "baskets", "crates", "packs", "trays"]
SHOPS = ("market", "bakery", "library", "school fair", "toy shop", "garden", "museum", "harbour")
PROBLEMS_PER_DOCUMENT = 14

Problem = tuple[str, str, str]


def write_document(seed: int) -> str:
    """One document of worked problems, about 1,500 tokens long."""
    dice = Random(f"math-{seed}")
    problems = [_worked(number + 1, dice) for number in range(PROBLEMS_PER_DOCUMENT)]
    return "\n".join(problems)


def _worked(number: int, dice: Random) -> str:
    question, solution, answer = dice.choice(KINDS)(dice)
    return f"Problem {number}: {question}\nSolution: {solution}\nAnswer: {answer}.\n"


def _two_names(dice: Random) -> tuple[str, str]:
    first, second = dice.sample(NAMES, 2)
    return first, second


def _packs(dice: Random) -> Problem:
    name, friend = _two_names(dice)
    goods, box, have = dice.choice(GOODS), dice.choice(BOXES), dice.randint(3, 30)
    packs, each = dice.randint(2, 9), dice.randint(2, 10)
    bought, total = packs * each, have + packs * each
    given = dice.randint(1, total - 1)
    verb = dice.choice(("buys", "finds", "wins", "gets"))
    return (
        f"{name} has {have} {goods}. {name} {verb} {packs} {box} with {each} {goods} each and gives {given} {goods} to "
        f"{friend}. How many {goods} does {name} have left?",
        f"The {box} hold {packs} * {each} = {bought} {goods}. Together with the first {have} this makes {have} + "
        f"{bought} = "
        f"{total}. After giving {given} to {friend}, {total} - {given} = {total - given} are left.",
        f"{total - given} {goods}",
    )


def _shopping(dice: Random) -> Problem:
    name, place = dice.choice(NAMES), dice.choice(SHOPS)
    first, second = dice.sample(GOODS, 2)
    count_a, count_b, price_a, price_b = (dice.randint(2, 9) for _ in range(4))
    cost_a, cost_b = count_a * price_a, count_b * price_b
    paid = (cost_a + cost_b + 9) // 10 * 10 + dice.choice((0, 10))
    return (
        f"At the {place}, {name} buys {count_a} {first} for {price_a} dollars each and {count_b} {second} for "
        f"{price_b} "
        f"dollars each, and pays with {paid} dollars. How much change does {name} get?",
        f"The {first} cost {count_a} * {price_a} = {cost_a} dollars and the {second} cost {count_b} * {price_b} = "
        f"{cost_b} "
        f"dollars. That is {cost_a} + {cost_b} = {cost_a + cost_b} dollars. The change is {paid} - {cost_a + cost_b} = "
        f"{paid - cost_a - cost_b} dollars.",
        f"{paid - cost_a - cost_b} dollars",
    )


def _journey(dice: Random) -> Problem:
    name = dice.choice(NAMES)
    speed, slower = dice.randint(4, 12) * 5, dice.randint(2, 8) * 5
    hours, more = dice.randint(2, 6), dice.randint(1, 5)
    by = dice.choice(("train", "bus", "car", "boat", "bicycle"))
    return (
        f"{name} travels by {by} for {hours} hours at {speed} km per hour and then for {more} hours at {slower} km "
        f"per hour. "
        f"How far does {name} travel in total?",
        f"The first part is {hours} * {speed} = {hours * speed} km. The second part is {more} * {slower} = "
        f"{more * slower} km. "
        f"In total {name} travels {hours * speed} + {more * slower} = {hours * speed + more * slower} km.",
        f"{hours * speed + more * slower} km",
    )


def _sharing(dice: Random) -> Problem:
    name, friend = _two_names(dice)
    goods, people, each, rest = dice.choice(GOODS), dice.randint(3, 9), dice.randint(2, 12), dice.randint(0, 2)
    total = people * each + rest
    return (
        f"{name} and {friend} share {total} {goods} equally among {people} children. How many {goods} does each "
        f"child get, and "
        f"how many remain?",
        f"{people} * {each} = {people * each}, which is at most {total}. So each child gets {each} {goods}. "
        f"{total} - {people * each} = {rest}, so {rest} {goods} remain.",
        f"{each} {goods} each, {rest} remain",
    )


def _ages(dice: Random) -> Problem:
    name, friend = _two_names(dice)
    age, gap, years = dice.randint(5, 40), dice.randint(2, 15), dice.randint(2, 20)
    return (
        f"{name} is {age} years old. {friend} is {gap} years older than {name}. How old will {friend} be in {years} "
        f"years?",
        f"Today {friend} is {age} + {gap} = {age + gap} years old. In {years} years {friend} will be {age + gap} + "
        f"{years} = "
        f"{age + gap + years}.",
        f"{age + gap + years} years",
    )


def _area(dice: Random) -> Problem:
    name, place = dice.choice(NAMES), dice.choice(("garden", "field", "room", "yard", "carpet", "roof"))
    long, wide = dice.randint(5, 20), dice.randint(2, 10)
    around, area = 2 * (long + wide), long * wide
    return (
        f"{name} measures a {place} that is {long} metres long and {wide} metres wide. What are its area and its "
        f"perimeter?",
        f"The area is {long} * {wide} = {area} square metres. The sides add up to {long} + {wide} = {long + wide} "
        f"metres, so the "
        f"perimeter is 2 * {long + wide} = {around} metres.",
        f"{area} square metres and {around} metres",
    )


def _percent(dice: Random) -> Problem:
    name, place, goods = dice.choice(NAMES), dice.choice(SHOPS), dice.choice(GOODS)
    percent, total = dice.choice((10, 20, 25, 50)), dice.randint(1, 15) * 20
    part = total * percent // 100
    return (
        f"A {place} has {total} {goods}. On {dice.choice(('Monday', 'Tuesday', 'Friday', 'Sunday'))} {name} sells "
        f"{percent} "
        f"percent of them. How many {goods} are left?",
        f"{percent} percent of {total} is {total} * {percent} / 100 = {part}. So {total} - {part} = {total - part} "
        f"{goods} are "
        f"left.",
        f"{total - part} {goods}",
    )


def _equation(dice: Random) -> Problem:
    factor, value, shift = dice.randint(2, 9), dice.randint(1, 12), dice.randint(1, 30)
    letter, total = dice.choice("xyznabk"), factor * value + shift
    return (
        f"Solve {factor} * {letter} + {shift} = {total} for {letter}.",
        f"Subtract {shift} from both sides: {factor} * {letter} = {total} - {shift} = {factor * value}. Divide both "
        f"sides by "
        f"{factor}: {letter} = {factor * value} / {factor} = {value}.",
        f"{letter} = {value}",
    )


def _average(dice: Random) -> Problem:
    name, goods = dice.choice(NAMES), dice.choice(GOODS)
    counts = [dice.randint(1, 20) for _ in range(3)]
    counts[2] += -sum(counts) % 3
    total = sum(counts)
    return (
        f"{name} counts {counts[0]}, {counts[1]} and {counts[2]} {goods} on three days. What is the average per day?",
        f"The sum is {counts[0]} + {counts[1]} + {counts[2]} = {total}. Divided by three days this is {total} / 3 = "
        f"{total // 3} {goods} per day.",
        f"{total // 3} {goods} per day",
    )


KINDS: tuple[Callable[[Random], Problem], ...] = (
    _packs, _shopping, _journey, _sharing, _ages, _area, _percent, _equation, _average,
)  # fmt: skip
