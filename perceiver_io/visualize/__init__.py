"""Pictures of results and of what happens inside: flow, charts, attention, position encodings."""

from perceiver_io.visualize.attention import draw_attention_on_image, draw_attention_over_text, most_focused
from perceiver_io.visualize.image_classification import draw_classes
from perceiver_io.visualize.language import draw_masked_text
from perceiver_io.visualize.optical_flow import draw_flow, draw_flow_wheel
from perceiver_io.visualize.positions import draw_position_encoding
from perceiver_io.visualize.style import save_figure
from perceiver_io.visualize.training import draw_loss_curve
from perceiver_io.visualize.video_autoencoding import side_by_side

__all__ = [
    "draw_attention_on_image",
    "draw_attention_over_text",
    "draw_classes",
    "draw_flow",
    "draw_flow_wheel",
    "draw_loss_curve",
    "draw_masked_text",
    "draw_position_encoding",
    "most_focused",
    "save_figure",
    "side_by_side",
]
