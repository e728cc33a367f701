"""Several modalities: names, order, padding, masking, splitting, and points per modality."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from perceiver_io import MultimodalPreprocessor, MultimodalQuery, PerceiverDecoder, PerceiverEncoder, PerceiverIO
from perceiver_io.multimodal import split_modalities
from perceiver_io.position_encoding import FourierPositionEncoding, LearnedPositionEncoding
from perceiver_io.postprocessors import ClassificationPostprocessor, ProjectionPostprocessor
from perceiver_io.preprocessors import AudioPatches, OneHot, Pixels, Preprocessor
from perceiver_io.queries import InputQuery, PositionQuery

REFUSED_NAMES = ["type", "training", "forward", "names", "items", "a.b", "", "num_channels", "vector"]


def preprocessor(mask_probs: dict[str, float] | None = None) -> MultimodalPreprocessor:
    return MultimodalPreprocessor(
        {
            "sound": Preprocessor(AudioPatches(4), FourierPositionEncoding((5,), num_bands=3)),
            "sight": Preprocessor(Pixels(2), LearnedPositionEncoding(6, 9)),
        },
        mask_probs=mask_probs,
        min_padding_size=3,
    )


def inputs(batch: int = 2) -> dict[str, Tensor]:
    return {"sound": torch.randn(batch, 20, 1), "sight": torch.randn(batch, 2, 2, 3)}


def model() -> PerceiverIO:
    """Different modalities in and out."""
    stem = preprocessor()
    query = MultimodalQuery(
        {
            "flow": PositionQuery(FourierPositionEncoding((3, 4), num_bands=2)),
            "sight": InputQuery(stem.num_channels),
            "class": PositionQuery(LearnedPositionEncoding(1, 8)),
        }
    )
    return PerceiverIO(
        PerceiverEncoder(
            stem.num_channels,
            num_latents=7,
            num_latent_channels=12,
            num_self_attends_per_block=1,
            num_self_attend_heads=3,
        ),
        PerceiverDecoder(query.num_channels, 12, output_channels=10),
        stem,
        query,
        {
            "flow": ProjectionPostprocessor(10, 2),
            "sight": ProjectionPostprocessor(10, 3),
            "class": ClassificationPostprocessor(10, 5),
        },
    ).eval()


def test_sorted_order_and_padding() -> None:
    module = preprocessor()
    given_inputs = inputs()
    tokens = module(dict(reversed(given_inputs.items())))
    assert tokens.tokens.shape == (2, 6 + 5, 14)  # the wider modality has 2 + 9 channels
    sight = module.modalities["sight"](given_inputs["sight"]).tokens
    sound = module.modalities["sound"](given_inputs["sound"]).tokens
    torch.testing.assert_close(tokens.tokens[:, :6, :11], sight)
    torch.testing.assert_close(tokens.tokens[:, 6:, :11], sound)
    torch.testing.assert_close(tokens.tokens[0, 0, 11:], module.padding.sight)
    torch.testing.assert_close(tokens.tokens[1, 6, 11:], module.padding.sound)


def test_masking_replaces_whole_tokens_and_can_be_reproduced() -> None:
    module = preprocessor({"sight": 0.5, "sound": 1.0})
    given_inputs = inputs(batch=50)
    torch.manual_seed(3)
    tokens = module(given_inputs).tokens
    torch.manual_seed(3)
    assert torch.equal(tokens, module(given_inputs).tokens)
    assert not torch.equal(tokens, module(given_inputs).tokens)
    masked = (tokens[:, :6] == module.mask_tokens.sight).all(-1)
    assert 0.4 < masked.float().mean() < 0.6
    unmasked = preprocessor()
    unmasked.load_state_dict(module.state_dict(), strict=False)
    assert torch.equal(tokens[:, :6][~masked], unmasked(given_inputs).tokens[:, :6][~masked])
    assert (tokens[:, 6:] == module.mask_tokens.sound).all()


@pytest.mark.parametrize("prob", [0.0, 0.5, 1.0])
def test_masking_can_be_chosen(prob: float) -> None:
    module = preprocessor({"sight": prob, "sound": 0.0})
    given_inputs = inputs()
    chosen = torch.rand(2, 6) < 0.5
    tokens = module(given_inputs, masked={"sight": chosen}).tokens
    assert torch.equal((tokens[:, :6] == module.mask_tokens.sight).all(-1), chosen)
    unmasked = preprocessor()
    unmasked.load_state_dict(module.state_dict(), strict=False)
    expected = unmasked(given_inputs).tokens
    assert torch.equal(tokens[:, :6][~chosen], expected[:, :6][~chosen])
    assert torch.equal(tokens[:, 6:], expected[:, 6:])
    with pytest.raises(ValueError, match=r"masked must name the modalities \[\]; unknown: \['sight'\]"):
        unmasked(given_inputs, masked={"sight": chosen})


def test_probabilities_of_0_and_1_need_no_random_numbers() -> None:
    state = torch.get_rng_state()
    module = preprocessor({"sight": 0.0, "sound": 1.0})
    after_construction = torch.get_rng_state()
    module(inputs())
    given_inputs = inputs()
    before = torch.get_rng_state()
    module(given_inputs)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(state, after_construction)


@pytest.mark.parametrize("name", REFUSED_NAMES)
def test_names_that_a_module_cannot_have_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r} cannot be the name of a modality"):
        MultimodalPreprocessor({name: Preprocessor(OneHot(2))})
    with pytest.raises(ValueError, match="choose another"):
        MultimodalQuery({name: PositionQuery(LearnedPositionEncoding(1, 8))})


def _can_be_named(name: str) -> bool:
    return bool(name) and "." not in name and name not in REFUSED_NAMES and not hasattr(torch.nn.Module, name)


@given(names=st.lists(st.text(max_size=4).filter(_can_be_named), min_size=1, max_size=5, unique=True))
def test_any_other_names(names: list[str]) -> None:
    module = MultimodalPreprocessor(
        {name: Preprocessor(OneHot(i + 2)) for i, name in enumerate(names)}, mask_probs=dict.fromkeys(names, 0.0)
    )
    twin = MultimodalPreprocessor(
        {name: Preprocessor(OneHot(i + 2)) for i, name in enumerate(names)}, mask_probs=dict.fromkeys(names, 0.0)
    )
    twin.load_state_dict(module.state_dict(), strict=True)
    vectors = {name: torch.randn(1, i + 2) for i, name in enumerate(names)}
    assert torch.equal(module(vectors).tokens, twin(vectors).tokens)
    assert len(module.state_dict()) == 2 * len(names)


def test_usual_names_stay_readable_in_the_state_dict() -> None:
    keys = set(preprocessor({"sight": 0.1}).state_dict())
    assert {"padding.sight", "padding.sound", "mask_tokens.sight"} <= keys
    assert "modalities.sight.position_encoding.embeddings" in keys


def test_masks_per_modality_equal_the_mask_of_all_tokens() -> None:
    module, given_inputs = model(), inputs()
    sight = torch.rand(2, 6) > 0.5
    everything = torch.cat([sight, torch.ones(2, 5, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(module(given_inputs, {"sight": sight}), module(given_inputs, everything))


@pytest.mark.parametrize("chunk_size", [None, 1, 4, 100])
def test_different_modalities_in_and_out_in_chunks(chunk_size: int | None) -> None:
    module, given_inputs = model(), inputs()
    outputs = module(given_inputs, chunk_size=chunk_size)
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "flow": (2, 12, 2),
        "sight": (2, 6, 3),
        "class": (2, 5),
    }
    torch.testing.assert_close(outputs, module(given_inputs))


def test_points_choose_modalities_and_outputs() -> None:
    module, given_inputs = model(), inputs()
    whole = module(given_inputs)
    outputs = module(given_inputs, points={"flow": slice(2, 9), "sight": torch.tensor([4, 0])})
    assert set(outputs) == {"flow", "sight"}
    torch.testing.assert_close(outputs["flow"], whole["flow"][:, 2:9])
    torch.testing.assert_close(outputs["sight"], whole["sight"][:, [4, 0]])
    torch.testing.assert_close(module(given_inputs, points={"class": None}), {"class": whole["class"]})


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_query_masks_per_modality(chunk_size: int | None) -> None:
    module, given_inputs = model(), inputs()
    mask = torch.rand(2, 12) > 0.5
    outputs = module(given_inputs, query_mask={"flow": mask}, chunk_size=chunk_size)
    whole = module(given_inputs)
    torch.testing.assert_close(outputs["sight"], whole["sight"])
    torch.testing.assert_close(outputs["flow"][mask], whole["flow"][mask])
    assert not torch.isclose(outputs["flow"][~mask], whole["flow"][~mask]).all()


def test_splitting_concatenated_outputs() -> None:
    module, given_inputs = model(), inputs()
    encoding = module.encode(given_inputs)
    queries = module.output_query(None, encoding.inputs)
    outputs = split_modalities(module.decoder(queries, encoding.latents), {"sight": 6, "flow": 12, "class": 1})
    assert list(outputs) == ["class", "flow", "sight"]
    torch.testing.assert_close(module.output_postprocessor(outputs), module(given_inputs))
    with pytest.raises(ValueError, match=r"outputs must name the modalities .* unknown: \['sound'\]"):
        module.output_postprocessor({"sound": outputs["flow"]})


def test_no_points_of_a_modality_are_no_outputs() -> None:
    outputs = model()(inputs(), points={"flow": torch.zeros(0, dtype=torch.long), "class": None})
    assert outputs["flow"].shape == (2, 0, 2)


def test_queries_and_postprocessors_must_match() -> None:
    whole = model()
    with pytest.raises(ValueError, match=r"must have the same modalities, got \['class', 'flow', 'sight'\] and None"):
        PerceiverIO(whole.encoder, whole.decoder, whole.input_preprocessor, whole.output_query)
    with pytest.raises(ValueError, match=r"Flatten does not say how wide its rows are; give it .* num_channels"):
        PerceiverIO(whole.encoder, whole.decoder, {"a": torch.nn.Flatten()})


def test_errors() -> None:
    module = model()
    with pytest.raises(ValueError, match=r"inputs must name the modalities \['sight', 'sound'\]; unknown: \['smell'\]"):
        module({"sight": torch.zeros(1, 2, 2, 3), "smell": torch.zeros(1, 20, 1)})
    with pytest.raises(ValueError, match=r"points must name the modalities .* unknown: \['sound'\]"):
        module(inputs(), points={"sound": None})
    with pytest.raises(ValueError, match="points must name at least one of the modalities"):
        module(inputs(), points={})
    with pytest.raises(ValueError, match=r"mask_probs\['sight'\] \(1.5\) must be a probability"):
        preprocessor({"sight": 1.5})
    with pytest.raises(ValueError, match="must have at least one entry"):
        MultimodalQuery({})
