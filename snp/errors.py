"""The one error that users cause and can mend: it names the place, the problem and the way out."""


class InputError(ValueError):
    """Bad input. The command line prints it as one line and exits with code 2.

    Args:
        where: file, field or option at fault, for example ``train.json: annotations[3].bbox``.
        problem: what is wrong with it.
        hint: what to do about it.
    """

    def __init__(self, where: object, problem: str, hint: str = "") -> None:
        self.where, self.problem, self.hint = str(where), problem, hint
        super().__init__(f"{where}: {problem}" + (f" ({hint})" if hint else ""))

    def __reduce__(self) -> tuple[type["InputError"], tuple[str, str, str]]:
        return type(self), (self.where, self.problem, self.hint)  # worker processes send it home pickled
