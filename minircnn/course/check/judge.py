"""How a learner's function is judged: called on copies, compared with a reference, told in one line what is wrong.

A check is a function that gets an :class:`Ask` and calls it as it would call the learner's function. :func:`exercise`
turns it into what a notebook calls: ``nms = check.nms(nms)``.
"""

import contextlib
import copy
import dis
import inspect
import io
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial, wraps
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

Answer = Callable[..., Any]
results: dict[str, str] = {}
"""What became of each exercise of this session: "right", "not yet" or "not written"."""


_NUMBERS = (bool, int, float, np.number, np.bool_)


class NotYet(Exception):
    """What is wrong with an answer, in one line for the learner."""


class Ask:
    """The learner's function, called on copies of the arguments.

    Whatever goes wrong in it becomes :class:`NotYet`, with a line that names the argument or the exception.
    """

    def __init__(self, answer: Answer, reference: Answer | None = None, by_hand: Answer | None = None) -> None:
        self.answer, self.reference, self.calls = answer, reference or answer, 0
        self.by_hand = by_hand or self.reference

    def __call__(self, *args: Any, may_change: bool = False) -> Any:  # noqa: ANN401
        """Call it; arguments that it changes are refused unless it ``may_change`` them."""
        given = args if may_change else copy.deepcopy(args)
        # What it prints is for the learner, once and not a hundred times.
        quiet = contextlib.redirect_stdout(io.StringIO()) if self.calls else contextlib.nullcontext()
        self.calls += 1
        try:
            with quiet:
                value = self.answer(*given)
        except NotYet:
            raise
        except (Exception, SystemExit) as error:
            text = " ".join(str(error).split())
            raise NotYet(f"it raises {type(error).__name__}{': ' + text[:150] if text else ''}") from error
        code = getattr(self.answer, "__code__", None)
        names = code.co_varnames[: code.co_argcount] if code else ()
        for n, (before, after) in enumerate(zip(args, given, strict=True)):
            if not may_change and difference(after, before) is not None:
                where = names[n] if n < len(names) else f"argument {n + 1}"
                raise NotYet(f"it changes {where}, which belongs to the caller; work on a copy")
        return value

    def cases(
        self,
        cases: Iterable[tuple],
        slips: str = "",
        what: str = "",
        *,
        right: Answer | None = None,
        also: Mapping[str, Answer] = MappingProxyType({}),
        change: Callable[[Any], Any] | None = None,
        run: Answer | None = None,
        may_change: bool = False,
        rtol: float = 1e-4,
        atol: float = 1e-5,
    ) -> None:
        """Call it for several inputs, and only then look for slips: a single input often fits more than one of them.

        Args:
            cases: its arguments, one tuple for each call.
            slips: a line each, ``old => new !! what to say``: who replaces this piece of the source by that one has
                made the slip. A line that begins with ``!!`` continues the one before. The source is that of the
                reference, or of a function that does the same in steps of which one can go wrong.
            what: the arguments in words, to be formatted with them: "for columns {0} to {1}".
            right: what is right for such arguments, if that is not the reference.
            also: more slips, functions of the same arguments by what to say.
            change: what to do with a value of the right shape before it is compared.
            run: what is compared is ``run(function, *case)``, and not what the function itself returns.
            may_change: whether it may change its arguments then.
            rtol: relative tolerance.
            atol: absolute tolerance.
        """
        cases, right, wrong_ways = list(cases), right or self.reference, {**altered(self.by_hand, slips), **also}
        ask = self
        if run:
            ask = Ask(partial(run, partial(self, may_change=may_change)))
            right, wrong_ways = partial(run, right), {text: partial(run, slip) for text, slip in wrong_ways.items()}
        answers, wanted = [ask(*case) for case in cases], [right(*copy.deepcopy(case)) for case in cases]
        for answer, value in zip(answers, wanted, strict=True):
            refuse_type(answer, value)
            if change:
                refuse_shape(answer, value)
        change = change or (lambda value: value)
        answers, wanted = [change(answer) for answer in answers], [change(value) for value in wanted]
        found = [difference(*pair, rtol, atol) for pair in zip(answers, wanted, strict=True)]
        if not any(found):
            return

        def returns(slip: Answer, case: tuple, answer: Any) -> bool:  # noqa: ANN401
            with contextlib.suppress(NotYet, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
                value = change(slip(*copy.deepcopy(case)))
                refuse_type(answer, value)
                return difference(answer, value, rtol, atol) is None
            return False

        for text, slip in wrong_ways.items():
            if all(returns(slip, *pair) for pair in zip(cases, answers, strict=True)):
                raise NotYet(text)
        first = next(number for number, text in enumerate(found) if text)
        refuse_shape(answers[first], wanted[first])
        where = what.format(*cases[first])
        raise NotYet(f"{where}: {found[first]}" if where else found[first])


def altered(reference: Answer, slips: str) -> dict[str, Answer]:
    """Functions with a piece of their source replaced by what to say about it, see :meth:`Ask.cases`.

    Raises:
        ValueError: a piece is not in the source, or two slips have the same text.
    """
    reference = inspect.unwrap(reference)  # behind torch.no_grad()
    source, found = textwrap.dedent(inspect.getsource(reference)), {}
    for line in re.sub(r"\s*\n\s*!!", " !!", slips).strip().splitlines():
        change, text = line.strip().split(" !! ")
        old, new = (piece.strip().replace("\\n", "\n") for piece in change.split("=>"))
        if old not in source or text in found:
            raise ValueError(f"{reference.__name__}: {old!r} is not in it, or there are two slips {text!r}")
        names = dict(reference.__globals__)
        exec(source.replace(old, new), names)
        found[text] = names[reference.__name__]
    return found


@contextlib.contextmanager
def hint(text: str) -> Iterator[None]:
    """Say something before whatever is wrong."""
    try:
        yield
    except NotYet as slip:
        raise NotYet(f"{text} {slip}") from None


def exercise(reference: Answer, by_hand: Answer | None = None) -> Callable[[Callable[[Ask], str]], Answer]:
    """Make a check of a function that looks at answers and says in a few words what they were compared with.

    The check, named like the exercise, prints one line, and returns what the notebook goes on with: the learner's
    function if it is right, else ``reference``.
    """

    def decorate(look: Callable[[Ask], str]) -> Answer:
        name = look.__name__

        @wraps(look)
        def check(answer: Answer) -> Answer:
            if callable(answer) and _is_stub(answer):
                results[name] = "not written"
                print(f"{name} is not written yet. Until then the notebook uses the package's.")
                return reference
            state = np.random.get_state()  # noqa: NPY002 - the learner's, which stays as it is
            try:
                if not callable(answer):
                    raise NotYet(f"{name} is no function any more but a {type(answer).__name__}; run its cell again")
                with torch.random.fork_rng(devices=[]):
                    said = look(Ask(answer, reference, by_hand))
            except NotYet as slip:
                results[name] = "not yet"
                print(f"{name}, not yet: {slip}. (The notebook uses the package's.)")
                return reference
            finally:
                np.random.set_state(state)  # noqa: NPY002
            results[name] = "right"
            print(f"{name} is right: {said}. The notebook uses yours.")
            return answer

        check.reference = reference
        return check

    return decorate


def refuse_kind(value: Any, kind: type, what: str = "") -> None:  # noqa: ANN401
    """Refuse what is no object of a class; ``what`` names what is wanted, if not as the class does."""
    if value is None:
        raise NotYet("it returns None; did you forget `return`?")
    if not isinstance(value, kind):
        raise NotYet(f"it returns a {_kind(value)}; {what or 'a ' + kind.__name__} is wanted")


def refuse_type(value: Any, wanted: Any) -> None:  # noqa: ANN401
    """Refuse another kind of value than the one that is wanted."""
    for where, one, right in _leaves(value, wanted):
        if isinstance(right, Tensor):
            if not isinstance(one, Tensor):
                raise NotYet(f"{where} a {_kind(one)}; a torch tensor of shape {tuple(right.shape)} is wanted")
            if not right.is_floating_point() and _content(one) != _content(right):
                raise NotYet(f"{where} {one.dtype}; {_content(right)} ({right.dtype}) are wanted")
            if one.is_floating_point() and one.isnan().any() and not right.isnan().any():
                raise NotYet(f"{where} nan; look for 0 / 0, or for the logarithm of a negative number")
        elif isinstance(right, _NUMBERS) and not (isinstance(one, _NUMBERS) or getattr(one, "numel", int)() == 1):
            raise NotYet(f"{where} a {_kind(one)}; one number is wanted")


def refuse_shape(value: Any, wanted: Any) -> None:  # noqa: ANN401
    """Refuse tensors of another shape than those that are wanted, of values that :func:`refuse_type` let pass."""
    for where, one, right in _leaves(value, wanted):
        if isinstance(right, Tensor) and one.shape != right.shape:
            raise NotYet(f"{where} shape {tuple(one.shape)}, wanted is {tuple(right.shape)}")


def _leaves(value: Any, wanted: Any, where: str = "it returns") -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401
    """What dicts and lists hold, each with what is wanted; containers of another kind or size are refused."""
    if value is None and wanted is not None:
        raise NotYet(f"{where} None; did you forget `return`?")
    if isinstance(wanted, Mapping):
        if not isinstance(value, Mapping):
            raise NotYet(f"{where} a {_kind(value)}; a dict with {_listed(wanted)} is wanted")
        if set(value) != set(wanted):
            raise NotYet(f"{where} a dict with {_listed(value)}; wanted are {_listed(wanted)}")
        for key in wanted:
            yield from _leaves(value[key], wanted[key], f"under {key!r} {where}")
    elif isinstance(wanted, (list, tuple)):
        if not isinstance(value, (list, tuple)):
            raise NotYet(f"{where} a {_kind(value)}; {len(wanted)} values are wanted")
        if len(value) != len(wanted):
            raise NotYet(f"{where} {len(value)} values; {len(wanted)} are wanted")
        for n, (one, right) in enumerate(zip(value, wanted, strict=True)):
            yield from _leaves(one, right, f"as value {n + 1} {where}")
    else:
        yield where, value, wanted


def difference(value: Any, wanted: Any, rtol: float = 0.0, atol: float = 0.0) -> str | None:  # noqa: ANN401
    """Where two values of one kind differ, in words; None where they agree."""
    if isinstance(wanted, Tensor) and isinstance(value, Tensor):
        return _difference_of_tensors(value.detach(), wanted.detach(), rtol, atol)
    if isinstance(wanted, np.ndarray) and isinstance(value, np.ndarray):
        return None if np.array_equal(value, wanted, equal_nan=wanted.dtype.kind == "f") else "the arrays differ"
    if isinstance(wanted, (list, tuple)) and isinstance(value, (list, tuple)):
        if len(value) != len(wanted):
            return f"there are {len(value)} values and not {len(wanted)}"
        value, wanted = ({f"value {n}": one for n, one in enumerate(whole, start=1)} for whole in (value, wanted))
    if isinstance(wanted, Mapping) and isinstance(value, Mapping):
        if set(value) != set(wanted):
            return f"there are {_listed(value)} and not {_listed(wanted)}"
        found = ((key, difference(value[key], wanted[key], rtol, atol)) for key in wanted)
        return next((f"{key}: {text}" for key, text in found if text), None)
    if isinstance(wanted, _NUMBERS):
        near = abs(float(value) - float(wanted)) <= atol + rtol * abs(float(wanted))
        return None if near else f"{_short(value)} instead of {_short(wanted)}"
    if isinstance(wanted, torch.nn.Module) and isinstance(value, torch.nn.Module):
        return difference(dict(value.state_dict()), dict(wanted.state_dict()))
    if isinstance(wanted, (str, type(None))):
        return None if value == wanted else f"{value!r} instead of {wanted!r}"
    return None  # objects that nobody can compare are taken as they are


def _difference_of_tensors(value: Tensor, wanted: Tensor, rtol: float, atol: float) -> str | None:
    if value.shape != wanted.shape:
        return f"shape {tuple(value.shape)} instead of {tuple(wanted.shape)}"
    equal = torch.isclose(value.double(), wanted.double(), rtol=rtol, atol=atol, equal_nan=True)
    if equal.all():
        return None
    first = tuple((~equal).nonzero()[0].tolist())
    place = f"[{', '.join(map(str, first))}]" if first else ""
    count = f"{int((~equal).sum())} of {equal.numel()} values differ; " if equal.numel() > 1 else ""
    return f"{count}{place or 'it'} is {_short(value[first])} instead of {_short(wanted[first])}"


def _short(value: Any) -> str:  # noqa: ANN401
    number = value.item() if isinstance(value, (Tensor, np.generic)) else value
    return f"{number:.4g}" if isinstance(number, float) else str(number)


def _kind(value: Any) -> str:  # noqa: ANN401
    return "numpy array" if isinstance(value, np.ndarray) else type(value).__name__


def _listed(names: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, sorted(names, key=str)))


def _content(values: Tensor) -> str:
    return "truth values" if values.dtype == torch.bool else "numbers" if values.is_floating_point() else "indices"


def _is_stub(answer: Answer) -> bool:
    """Whether there is nothing in a function, or in a class, but its docstring."""
    if isinstance(answer, type):
        return not any(callable(value) for value in vars(answer).values())
    code = getattr(answer, "__code__", None)
    if code is None:
        return False
    steps = {step.opname for step in dis.get_instructions(code)}
    returns_none = steps <= {"RESUME", "RETURN_CONST", "LOAD_CONST", "RETURN_VALUE", "NOP"}
    return returns_none and set(code.co_consts) <= {None, answer.__doc__}
