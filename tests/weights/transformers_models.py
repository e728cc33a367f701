"""Small random models of transformers, one of every class, and inputs for them."""

from typing import Any

import torch
from torch import Tensor

CLASSES = (
    "PerceiverForMaskedLM",
    "PerceiverForSequenceClassification",
    "PerceiverForImageClassificationFourier",
    "PerceiverForImageClassificationLearned",
    "PerceiverForImageClassificationConvProcessing",
    "PerceiverForOpticalFlow",
    "PerceiverForMultimodalAutoencoding",
)
_ENCODER = {
    "num_latents": 7,
    "d_latents": 24,
    "num_blocks": 2,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 3,
    "num_cross_attention_heads": 1,
    "hidden_act": "gelu_pytorch_tanh",
}
_TEXT = {
    **_ENCODER,
    "vocab_size": 31,
    "max_position_embeddings": 17,
    "d_model": 40,
    "qk_channels": 12,
    "v_channels": 24,
    "num_cross_attention_heads": 2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "PerceiverForMaskedLM": _TEXT,
    "PerceiverForSequenceClassification": {**_TEXT, "num_labels": 3},
    "PerceiverForImageClassificationFourier": {**_ENCODER, "num_labels": 11},
    "PerceiverForImageClassificationLearned": {**_ENCODER, "num_labels": 11, "image_size": 9},
    "PerceiverForImageClassificationConvProcessing": {**_ENCODER, "num_labels": 11},
    "PerceiverForOpticalFlow": {**_ENCODER, "train_size": [8, 10]},
    "PerceiverForMultimodalAutoencoding": {
        **_ENCODER,
        "num_labels": 13,
        "num_frames": 3,
        "image_size": 2,
        "output_shape": [1, 3, 8, 8],
        "audio_samples_per_frame": 20,
        "samples_per_patch": 5,
        "output_num_channels": 18,
        "_label_trainable_num_channels": 29,
    },
}


def random_model(name: str, **changes: Any) -> Any:
    """A model of transformers' with weights of which each matters, in evaluation mode."""
    import transformers

    torch.manual_seed(1)
    model = getattr(transformers, name)(transformers.PerceiverConfig(**{**CONFIGS[name], **changes}))
    with torch.no_grad():
        for tensor_name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if tensor.ndim == 1:
                scale = tensor_name.endswith(("weight", "running_var"))
                tensor.uniform_(0.5, 1.5) if scale else tensor.normal_(0, 0.1)
            else:
                tensor.normal_(0, 0.5 if "embeddings" in tensor_name else tensor.shape[-1] ** -0.5)
    return model.eval()


def inputs_for(name: str) -> tuple[Tensor, ...]:
    """Inputs as our model takes them."""
    match name:
        case "PerceiverForMaskedLM" | "PerceiverForSequenceClassification":
            mask = torch.ones(2, 17, dtype=torch.bool)
            mask[1, 11:] = False
            return torch.randint(31, (2, 17)), mask
        case "PerceiverForOpticalFlow":
            frame1, frame2 = torch.rand(2, 2, 3, 8, 10) * 2 - 1
            return frame1, frame2
        case "PerceiverForMultimodalAutoencoding":
            return torch.rand(2, 3, 3, 8, 8), torch.rand(2, 60, 1) * 2 - 1
        case "PerceiverForImageClassificationLearned":
            return (torch.randn(2, 3, 9, 9),)
    return (torch.randn(2, 3, 12, 15),)


def outputs_of(model: Any, *inputs: Tensor) -> Tensor:
    """What a model of transformers' makes of our inputs, as our model lays it out; of a video, its images."""
    from perceiver_io.patches import patches_for_flow

    with torch.inference_mode():
        match type(model).__name__:
            case "PerceiverForMaskedLM" | "PerceiverForSequenceClassification":
                return model(input_ids=inputs[0], attention_mask=inputs[1].long()).logits
            case "PerceiverForOpticalFlow":
                patches = patches_for_flow(torch.stack(inputs, dim=1))
                # The reference multiplies by 20, transformers does not.
                return 20 * model(inputs=patches).logits.movedim(-1, 1)
            case "PerceiverForMultimodalAutoencoding":
                video, audio = inputs
                points = {"image": torch.arange(3 * 8 * 8), "audio": torch.arange(12), "label": None}
                given = {"image": video, "audio": audio, "label": torch.zeros(2, 13)}
                image = model(inputs=given, subsampled_output_points=points).logits["image"]
                return image.reshape(2, 3, 8, 8, 3).movedim(-1, 2)
    return model(inputs=inputs[0]).logits
