"""One tiny net of random weights per class of keras_hub that can be a backbone and has no feature pyramid."""

import io
import string

import keras_hub

_BLOCK = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16}
_TEXT = {**_BLOCK, "vocabulary_size": 64, "embedding_dim": 16, "intermediate_dim": 32, "max_sequence_length": 32}
_VISION = {**_BLOCK, "patch_size": 16, "intermediate_dim": 32, "image_shape": (32, 32, 3)}
_DINO = {**_BLOCK, "patch_size": 16, "intermediate_dim": 32, "image_shape": (32, 32, 3)}


def vit(**options):
    own = {**_BLOCK, "image_shape": (32, 32, 3), "patch_size": 16, "mlp_dim": 32}
    return keras_hub.models.ViTBackbone(**own | options)


def deit():
    return keras_hub.models.DeiTBackbone(image_shape=(32, 32, 3), patch_size=16, intermediate_dim=32, **_BLOCK)


def dinov2(registers=4):
    return keras_hub.models.DINOV2Backbone(
        **_DINO, num_register_tokens=registers, position_embedding_shape=(64, 64, 3), apply_layernorm=True
    )


def dinov3():
    return keras_hub.models.DINOV3Backbone(**_DINO, apply_layernorm=True)


def clip():
    vision, text = keras_hub.models.CLIPVisionEncoder(**_VISION), keras_hub.models.CLIPTextEncoder(**_TEXT)
    return keras_hub.models.CLIPBackbone(vision_encoder=vision, text_encoder=text, projection_dim=16)


def metaclip2():
    vision = keras_hub.models.MetaCLIP2VisionEncoder(**_VISION)
    text = keras_hub.models.MetaCLIP2TextEncoder(**_TEXT)
    return keras_hub.models.MetaCLIP2Backbone(vision_encoder=vision, text_encoder=text, projection_dim=16)


def siglip():
    vision = keras_hub.models.SigLIPVisionEncoder(**_VISION)
    text = keras_hub.models.SigLIPTextEncoder(**_TEXT)
    return keras_hub.models.SigLIPBackbone(vision_encoder=vision, text_encoder=text)


def swin():
    return keras_hub.models.SwinTransformerBackbone(
        image_shape=(32, 32, 3), embed_dim=16, depths=(1,), num_heads=(2,), window_size=4
    )


def mobilenetv5():
    stacks = {
        "stackwise_block_types": ("er", "uir"),
        "stackwise_num_filters": (8, 16),
        "stackwise_strides": (2, 2),
        "stackwise_act_layers": ("relu", "relu"),
        "stackwise_exp_ratios": (2.0, 2.0),
        "stackwise_se_ratios": (0.0, 0.0),
        "stackwise_dw_kernel_sizes": (0, 3),
        "stackwise_dw_start_kernel_sizes": (0, 0),
        "stackwise_dw_end_kernel_sizes": (0, 0),
        "stackwise_exp_kernel_sizes": (3, 0),
        "stackwise_pw_kernel_sizes": (1, 0),
        "stackwise_num_heads": (0, 0),
        "stackwise_key_dims": (0, 0),
        "stackwise_value_dims": (0, 0),
        "stackwise_kv_strides": (0, 0),
        "stackwise_use_cpe": (False, False),
    }
    return keras_hub.models.MobileNetV5Backbone(
        **{name: [[value] for value in values] for name, values in stacks.items()},
        stackwise_num_blocks=[1, 1],
        num_features=16,
        msfa_output_resolution=2,
    )


def hgnetv2():
    return keras_hub.models.HGNetV2Backbone(
        depths=[1],
        embedding_size=8,
        hidden_sizes=[16],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[[8, 8, 16, 1, 1, 3]],
        apply_downsample=[False],
        use_lightweight_conv_block=[False],
    )


def mobilenet():
    return keras_hub.models.MobileNetBackbone(
        stackwise_expansion=[[8]],
        stackwise_num_blocks=[1],
        stackwise_num_filters=[[8]],
        stackwise_kernel_size=[[3]],
        stackwise_num_strides=[[2]],
        stackwise_se_ratio=[[0.25]],
        stackwise_activation=[["hard_swish"]],
        stackwise_padding=[[1]],
        output_num_filters=32,
        input_num_filters=8,
        depthwise_filters=8,
        depthwise_stride=1,
        depthwise_residual=True,
        last_layer_filter=16,
        input_activation="hard_swish",
        output_activation="hard_swish",
    )


def xception():
    return keras_hub.models.XceptionBackbone(
        stackwise_conv_filters=[[4], [8, 8], [16]], stackwise_pooling=[False, True, False]
    )


def vgg():
    return keras_hub.models.VGGBackbone(stackwise_num_repeats=[1, 1], stackwise_num_filters=[4, 8])


# Net of images and text -> ids of its letters, by which a sentence is spelled; CLIP marks the end of each word.
LETTERS = string.ascii_lowercase + "."


def spelled(net, folder):
    """Saves a net of images and text as a preset, with a tokenizer that knows letters alone."""
    models, family = keras_hub.models, type(net).__name__.removesuffix("Backbone")
    if family == "CLIP":
        ends = (f"{letter}</w>" for letter in LETTERS)
        tokens = [*LETTERS, *ends, "qq", "<|startoftext|>", "<|endoftext|>"]  # TensorFlow takes no empty list of pairs
        made = models.CLIPPreprocessor(models.CLIPTokenizer({token: i for i, token in enumerate(tokens)}, ["q q"]))
    else:
        import sentencepiece  # noqa: PLC0415 - which comes with keras_hub of late

        proto = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(LETTERS), model_writer=proto, model_type="char", vocab_size=len(LETTERS) + 4
        )
        preprocessors = {"SigLIP": models.SigLIPPreprocessor, "MetaCLIP2": models.MetaCLIP2CausalLMPreprocessor}
        tokenizer = getattr(models, f"{family}Tokenizer")(proto.getvalue())
        made = preprocessors[family](tokenizer)
    net.save_to_preset(folder)
    made.save_to_preset(folder)
    return f"keras_hub/{folder}"
