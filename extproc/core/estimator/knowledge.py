"""All that the byte-class estimator has learned, by model and by category: lookup, storage, loading, sharing."""

from collections.abc import Callable, Sequence
from functools import partial

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.aliases import Aliases
from extproc.core.estimator.belief import Belief, believe
from extproc.core.estimator.categories import CappedMap
from extproc.core.estimator.change import ALL_MODELS, Change, ModelChange, RowChange, in_bites, residual_key
from extproc.core.estimator.extra import Extra
from extproc.core.estimator.features import FEATURE_NAMES, Features, features
from extproc.core.estimator.output_lengths import OutputLengths, Outputs, states_of
from extproc.core.estimator.prices import prior
from extproc.core.estimator.protocol import CategoryKey, CategoryState, LearnedState, Source
from extproc.core.estimator.residual import Residual, loaded
from extproc.core.estimator.rivals import Contest, Observed, Rival
from extproc.core.estimator.served_model import ServedModel, need_finite
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.text import look
from extproc.core.estimator.voices import SMALL
from extproc.core.facts import RequestFacts

__all__ = ["KIND", "Knowledge"]

KIND = "byteclass"


class Knowledge:
    """Models, residuals, tenants' constants and output lengths. `left_out` is excluded from the prior."""

    def __init__(self, settings: EstimatorSettings, left_out: str = "") -> None:
        self._settings = settings
        self.prior = prior(settings.media_tokens, left_out)
        self.all_models = Residual()
        self.models: CappedMap[str, ServedModel] = CappedMap(settings.max_models, self._begin)
        self.aliases = Aliases(self.models, settings.max_models)
        # Stands in for every model without responses: such models are not stored, because names come from clients.
        self.untaught = ServedModel(self.prior, settings.byteclass, self.all_models)
        self.residuals: CappedMap[CategoryKey, Residual] = CappedMap(
            settings.max_categories, lambda key: self.parent(key.model).child()
        )
        self.extras: CappedMap[CategoryKey, Extra] = CappedMap(settings.max_categories, lambda _: Extra())
        self._contests: CappedMap[str, Contest] = CappedMap(settings.max_models, lambda _: Contest())
        self.outputs = OutputLengths(settings)

    def model(self, name: str) -> ServedModel:
        """Return the model that a name is estimated by."""
        return self.aliases.get(name) or self.untaught

    def parent(self, name: str) -> Residual:
        """Return what a new category of the model starts from."""
        known = self.aliases.get(name)
        return self.all_models.child() if known is None else known.residual

    def believe(
        self,
        model: ServedModel,
        category: CategoryKey,
        x: Features,
        text_bytes: int,
        source: int,
        *,
        sums: Sequence[float] | None = None,
    ) -> Belief:
        """Return the current estimate for a request with features x from a source, by the category's model.

        `sums` are the model's views of x, if they have been computed.
        """
        voice = model.voices.known.get(source, SMALL)
        residual = self.residuals.get(category)
        if residual is None:
            residual = self.all_models.child() if model is self.untaught else model.residual
        if voice.own is not None:
            residual = voice.adjusted(residual)
        return believe(x, text_bytes, model, residual, more_q=voice.q, sums=sums)

    def tokens(self, facts: RequestFacts, category: CategoryKey, source: int) -> float:
        """Return the most likely tokens of a request, whatever is known of its beginning."""
        x, extra = features(facts, look(facts.text)), self.extras.get(category)
        belief = self.believe(self.model(category.model), category, x, len(facts.text), source)
        return belief.tokens + (0.0 if extra is None else extra.tokens)

    def come_from(self, model: ServedModel, category: CategoryKey) -> Source:
        """Return where estimates of the category come from."""
        residual = self.residuals.get(category)
        if model.prices.responses == 0:
            return Source.PRIOR
        young = residual is None or residual.responses < self._settings.young_observations
        return Source.YOUNG if young else Source.LEARNED

    def compare(self, category: CategoryKey, observed: Observed, *, alarm: bool) -> Rival | None:
        """Compare a model with its rival on a response; return the rival if it has taken the model's place.

        `alarm` says that it is time for a new rival, unless there is one that may win.
        """
        name = self.aliases.key(category.model)
        contest = self._contests.use(name) if alarm else self._contests.get(name)
        if contest is None:
            return None
        fresh = partial(self._next_generation, name) if alarm else None
        rival = contest.observe(category, observed, fresh)
        if rival is not None:
            self._switch(name, contest, rival)
        return rival

    def undo(self, name: str) -> bool:
        """Restore the model that new prices replaced; return False if none was replaced.

        Called when a person has seen that the new prices are worse. The two models change places, so a second call
        reverts the first; and neither replaces the other on its own for a thousand responses.
        """
        key = self.aliases.key(name)
        model, contest = self.models.get(key), self._contests.get(key)
        if model is None or contest is None or contest.aside is None:
            return False
        undone = model.generation
        self._switch(key, contest, contest.aside)
        contest.hold(undone)
        return True

    def _next_generation(self, name: str) -> ServedModel:
        fresh = ServedModel(self.prior, self._settings.byteclass, Residual())
        fresh.generation = self.model(name).generation + 1
        return fresh

    def _switch(self, name: str, contest: Contest, rival: Rival) -> None:
        """Put a rival in the place of its model, and set that one aside."""
        model = self.model(name)
        residuals = self.residuals.drop(lambda of: self.aliases.key(of.model) == name)
        self.extras.drop(lambda of: self.aliases.key(of.model) == name)
        for key, residual in rival.categories.items():
            self.residuals.put(key, residual)
        rival.model.follow(model)
        self.models.put(name, rival.model)
        contest.changed(Rival(model, residuals))

    def parts(self) -> list[Callable[[], LearnedState]]:
        """Return calls that each build a part of `state`: one model, or some rows."""
        residuals = list(self.residuals)
        if self.all_models.responses:
            residuals.append((ALL_MODELS, self.all_models))
        return [
            self._part,
            *(partial(self._part_of_model, name, model) for name, model in self.models),
            *(partial(self._part, residuals=rows) for rows in in_bites(residuals)),
            *(partial(self._part, outputs=rows) for rows in in_bites(self.outputs.rows())),
        ]

    def _part(self, residuals: Sequence[tuple[CategoryKey, Residual]] = (), outputs: Outputs = ()) -> LearnedState:
        rows = (CategoryState(k, r.bytes_per_token, 0.0, r.responses, r.mean, r.spread) for k, r in residuals)
        return LearnedState(KIND, tuple(rows), FEATURE_NAMES, outputs=states_of(outputs))

    def _part_of_model(self, name: str, model: ServedModel) -> LearnedState:
        return LearnedState(KIND, features=FEATURE_NAMES, models=(model.state(name),))

    def load(self, state: LearnedState) -> None:
        """Continue from what another byte-class estimator learned.

        Raises ConfigurationError for a state of another kind of estimator, over other features, or with numbers
        that are not finite; nothing is loaded then.
        """
        if state.estimator_kind != KIND:
            raise ConfigurationError(
                f"learned state is of kind {state.estimator_kind!r}; this router has {KIND!r}"
            )
        if state.features != FEATURE_NAMES:
            raise ConfigurationError(
                f"learned state has {len(state.features)} features, from another version; "
                f"this router has {len(FEATURE_NAMES)}"
            )
        residuals = []
        for row in state.categories:
            key, numbers = row.category, (row.residual, row.spread, row.bytes_per_token)
            need_finite(key.model, *numbers)
            residuals.append((key, loaded(key.model, *numbers, row.observations)))
        models = [(each, self._new_model(each.model)) for each in state.models]
        for each, model in models:
            model.load(each)
        self.outputs.load(state.outputs)
        for each, model in models:
            self.models.put(each.model, model)
            self._contests.use(each.model).end()
        for key, residual in residuals:
            if key == ALL_MODELS:
                self.all_models = residual
            elif key != residual_key(key.model):  # that of a model is in the model's row
                self.residuals.put(key, residual)

    def shift(self, change: Change) -> Change:
        """Add what others learned; return the changes that could not be applied since their rows have changed."""
        return Change(
            tuple(row for row in change.models if not self._shift_model(row)),
            tuple(row for row in change.categories if not self._shift_residual(row)),
            tuple(row for row in change.outputs if not self.outputs.shift(row)),
        )

    def _shift_model(self, change: ModelChange) -> bool:
        model = self.models.get(change.model)
        if model is None:
            if change.since or change.responses <= 0 or len(self.models) >= self._settings.max_models:
                return False
            model = self._begin(change.model)
            model.residual = Residual(spread=0.0)  # all of it is in the row of the same bite
            self.models.put(change.model, model)
            model.generation = change.from_generation
        if model.generation != change.from_generation or model.prices.responses < change.since:
            return False
        if change.generation != model.generation:
            contest = self._contests.use(change.model)
            if contest.refuses(change.generation):
                model.generation = change.generation + 1  # so it stays; others follow once most do so
                return False
            contest.end()  # the model that the rival was to replace no longer exists
        model.shift(change)
        return True

    def _shift_residual(self, change: RowChange) -> bool:
        residual = self._residual_to_shift(change)
        if residual is None or residual.responses < change.since:
            return False
        bytes_per_token, _, mean, variance = change.values.tolist()
        residual.shift(mean, variance, bytes_per_token, change.responses, change.since)
        return True

    def _residual_to_shift(self, change: RowChange) -> Residual | None:
        key = change.key
        if key == ALL_MODELS:
            if not (self.all_models.responses or change.since):  # the view did not include it
                self.all_models = Residual(spread=0.0)
            return self.all_models
        if key == residual_key(key.model):
            model = self.models.get(key.model)
            return None if model is None else model.residual
        contest = self._contests.get(self.aliases.key(key.model))
        if contest is not None and contest.is_held:
            return None  # it may belong to the generation that was undone
        residual = self.residuals.get(key)
        if residual is None and not change.since and len(self.residuals) < self._settings.max_categories:
            residual = Residual(spread=0.0)
            self.residuals.put(key, residual)
        return residual

    def _begin(self, name: str) -> ServedModel:
        """Return a new model; what one of that name, since evicted, was compared with does not concern it."""
        self._contests.drop(lambda of: of == name)
        return self._new_model(name)

    def _new_model(self, _name: str) -> ServedModel:
        return ServedModel(self.prior, self._settings.byteclass, self.all_models.child())
