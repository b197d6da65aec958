"""The cases of the families: classes, and configurations that change the numbers.

A case's configuration holds only what differs from transformers' defaults, so defaults are tested too.
"""

from dataclasses import dataclass, field

LABELS = {"0": "bad", "1": "neutral", "2": "good"}
SIZES = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
LENGTHS = [1, 2, 3, 17, 40]
MASK = 4


@dataclass
class Case:
    """One model folder: its class, and fields over the family's base configuration."""

    name: str
    architecture: str
    fields: dict = field(default_factory=dict)
    # Tensors whose name contains one of these are left out of the checkpoint.
    without: tuple[str, ...] = ()
    # Whether the names lose the base model's prefix, as checkpoints of the base class have them.
    bare: bool = False
    lengths: list[int] = field(default_factory=lambda: LENGTHS)
    # The case that answers the same, since only the folders differ.
    same_as: str | None = None
    # Tensors (regular expressions) that its output does not show.
    unseen: tuple[str, ...] = ()


@dataclass
class Family:
    """An architecture with its cases."""

    name: str
    base: dict
    cases: list[Case]
    # Field that must be refused by name → fields that set it.
    refuse: list[tuple[str, dict]]
    # What stands before the base model's tensors.
    prefix: str = ""
    padding: int = 0
    # Whether padding ids occur inside of the inputs.
    padded_inside: bool = True
    # Last id of every input, or None.
    end: int | None = None
    gains: dict = field(default_factory=dict)
    # Tensors (regular expressions) that no output of any class shows.
    unseen: tuple[str, ...] = (r"\.key\.bias",)


def heads(stem: str, base: str = "Model", masked: dict | None = None, without: tuple[str, ...] = ()) -> list[Case]:
    """A case of each class that most families have."""
    bare = Case("base", f"{stem}{base}", without=without, bare=True)
    classes = ["ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM"]
    names = ["sequence", "token", "question", "masked"]
    cases = [bare, *(Case(name, f"{stem}{kind}") for name, kind in zip(names, classes, strict=True))]
    cases[-1].fields = masked or {}
    return cases


def of_base(stem: str, base: str = "Model", **fields: dict) -> list[Case]:
    """A case of the base class per configuration."""
    return [Case(name.replace("_", "-"), f"{stem}{base}", fields) for name, fields in fields.items()]


def untied(stem: str) -> Case:
    return Case("masked-untied", f"{stem}ForMaskedLM", {"tie_word_embeddings": False})


NOT_ENCODERS = [("is_decoder", {"is_decoder": True}), ("add_cross_attention", {"add_cross_attention": True, "is_decoder": True})]
RELATIVE = [("position_embedding_type", {"position_embedding_type": "relative_key"})]


def bert() -> Family:
    cases = heads("Bert") + of_base(
        "Bert",
        relu={"hidden_act": "relu"},
        epsilon={"layer_norm_eps": 1e-3},
        two_heads={"num_attention_heads": 2},
        types={"type_vocab_size": 3},
    )
    # Its second output, the next sentence, isn't recorded.
    cases.append(Case("pretraining", "BertForPreTraining", same_as="masked", unseen=("seq_relationship",)))
    cases += [untied("Bert"), Case("no-pooler", "BertModel", without=("pooler",), same_as="base")]
    base = SIZES | {"model_type": "bert", "max_position_embeddings": 40}
    return Family("bert", base, cases, NOT_ENCODERS[:1] + RELATIVE, prefix="bert.")


def roberta() -> Family:
    cases = heads("Roberta") + of_base(
        "Roberta",
        silu={"hidden_act": "silu"},
        epsilon={"layer_norm_eps": 1e-3},
        types={"type_vocab_size": 2},
    )
    short = Case("padding", "RobertaModel", {"pad_token_id": 3}, lengths=[1, 3, 17, 38])
    other = [
        Case("xlm-roberta", "XLMRobertaForSequenceClassification", {"model_type": "xlm-roberta"}, same_as="sequence"),
        Case("xlm-roberta-masked", "XLMRobertaForMaskedLM", {"model_type": "xlm-roberta"}, same_as="masked"),
        Case("camembert", "CamembertForTokenClassification", {"model_type": "camembert"}, same_as="token"),
        Case("no-pooler", "RobertaModel", without=("pooler",), same_as="base"),
    ]
    base = SIZES | {"model_type": "roberta", "max_position_embeddings": 42, "type_vocab_size": 1}
    cases += [untied("Roberta"), short, *other]
    return Family("roberta", base, cases, NOT_ENCODERS[:1] + RELATIVE, prefix="roberta.", padding=1)


def distilbert() -> Family:
    cases = heads("DistilBert") + of_base(
        "DistilBert", relu={"activation": "relu"}, two_heads={"n_heads": 2}
    )
    cases.append(untied("DistilBert"))
    # The table is that of the checkpoint.
    cases.append(Case("sinusoidal", "DistilBertModel", {"sinusoidal_pos_embds": True}))
    sizes = {"vocab_size": 128, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40}
    base = sizes | {"model_type": "distilbert"}
    return Family("distilbert", base, cases, [], prefix="distilbert.", unseen=(r"\.k_lin\.bias",))


def albert() -> Family:
    cases = heads("Albert") + of_base(
        "Albert",
        two_groups={"num_hidden_groups": 2, "num_hidden_layers": 4},
        relu={"hidden_act": "relu"},
        epsilon={"layer_norm_eps": 1e-3},
        as_wide={"embedding_size": 32},
    )
    # Layers that share their weights
    cases.append(Case("inner", "AlbertModel", {"inner_group_num": 2}))
    cases.append(untied("Albert"))
    base = SIZES | {"model_type": "albert", "embedding_size": 16, "max_position_embeddings": 40}
    return Family("albert", base, cases, RELATIVE, prefix="albert.")


def electra() -> Family:
    masked = {"embedding_size": 16}
    cases = heads("Electra", masked=masked) + of_base(
        "Electra", relu={"hidden_act": "relu"}, epsilon={"layer_norm_eps": 1e-3}, as_wide={"embedding_size": 32}
    )
    cases += [Case("discriminator", "ElectraForPreTraining"), untied("Electra")]
    cases.append(Case("discriminator-relu", "ElectraForPreTraining", {"hidden_act": "relu"}))
    base = SIZES | {"model_type": "electra", "embedding_size": 16, "max_position_embeddings": 40}
    return Family("electra", base, cases, NOT_ENCODERS[:1] + RELATIVE, prefix="electra.")


def mpnet() -> Family:
    cases = heads("MPNet") + of_base(
        "MPNet", relu={"hidden_act": "relu"}, epsilon={"layer_norm_eps": 1e-3}
    )
    cases += [untied("MPNet"), Case("no-pooler", "MPNetModel", without=("pooler",), same_as="base")]
    base = SIZES | {"model_type": "mpnet", "max_position_embeddings": 42}
    # transformers computes 32 buckets, whatever the field says.
    refuse = [("relative_attention_num_buckets", {"relative_attention_num_buckets": 8})]
    return Family("mpnet", base, cases, refuse, prefix="mpnet.", padding=1, unseen=(r"\.attn\.k\.bias",))


def t5() -> Family:
    sizes = {"vocab_size": 128, "d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    cases = [Case("base", "T5EncoderModel")]
    cases += of_base(
        "T5",
        "EncoderModel",
        gated_gelu={"feed_forward_proj": "gated-gelu"},
        gated_silu={"feed_forward_proj": "gated-silu"},
        gelu={"feed_forward_proj": "gelu"},
        gelu_new={"feed_forward_proj": "gelu_new"},
        buckets={"relative_attention_num_buckets": 8},
        near={"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12},
        epsilon={"layer_norm_epsilon": 1e-3},
        wide={"d_kv": 8},
    )
    cases.append(Case("mt5", "MT5EncoderModel", {"model_type": "mt5", "feed_forward_proj": "gated-gelu"}, same_as="gated-gelu"))
    base = sizes | {"model_type": "t5"}
    gains = {"peaked": 0.5, "down": 4.0}
    for case in cases:
        case.lengths = [*LENGTHS, 150]
    return Family("t5", base, cases, [("feed_forward_proj", {"feed_forward_proj": "gated-selu"})], gains=gains, unseen=())


def modernbert() -> Family:
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    sizes = SIZES | {"num_hidden_layers": 3, "global_attn_every_n_layers": 2, "local_attention": 8}
    cases = heads("ModernBert") + of_base(
        "ModernBert",
        norm_bias={"norm_bias": True},
        attention_bias={"attention_bias": True},
        mlp_bias={"mlp_bias": True},
        every_third={"global_attn_every_n_layers": 3},
        window={"local_attention": 16},
        global_theta={"global_rope_theta": 10000.0},
        local_theta={"local_rope_theta": 500.0},
        epsilon={"norm_eps": 1e-3},
        silu={"hidden_activation": "silu"},
        gelu_tanh={"hidden_activation": "gelu_pytorch_tanh"},
    )
    classes = "ModernBertForSequenceClassification"
    cases += [
        Case("mean", classes, {"classifier_pooling": "mean"}),
        Case("classifier-bias", classes, {"classifier_bias": True, "norm_bias": True}),
        Case("classifier-activation", classes, {"classifier_activation": "relu"}),
        Case("no-decoder-bias", "ModernBertForMaskedLM", {"decoder_bias": False}),
        untied("ModernBert"),
    ]
    base = sizes | tokens | {"model_type": "modernbert", "max_position_embeddings": 40}
    gains = {"down": 4.0}
    return Family("modernbert", base, cases, [], prefix="model.", gains=gains, unseen=())


def deberta() -> Family:
    relative = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
    cases = heads("Deberta") + of_base(
        "Deberta",
        c2p={"pos_att_type": ["c2p"]},
        p2c={"pos_att_type": "p2c"},
        span={"max_relative_positions": 6},
        absolute={"relative_attention": False, "position_biased_input": True, "pos_att_type": []},
        absolute_types={"relative_attention": False, "position_biased_input": True},
        biased={"position_biased_input": True},
        types={"type_vocab_size": 2},
        narrow={"embedding_size": 16},
        relu={"hidden_act": "relu"},
        epsilon={"layer_norm_eps": 1e-3},
    )
    cases += [
        Case("neither", "DebertaModel", {"pos_att_type": []}, unseen=("rel_embeddings",)),
        untied("Deberta"),
        Case("pooler-relu", "DebertaForSequenceClassification", {"pooler_hidden_act": "relu"}),
    ]
    base = SIZES | relative | {"model_type": "deberta", "max_position_embeddings": 40, "type_vocab_size": 0}
    refuse = [
        ("talking_head", {"talking_head": True}),
        ("legacy", {"legacy": False, "architectures": ["DebertaForMaskedLM"]}),
    ]
    return Family("deberta", base, cases, refuse, prefix="deberta.", unseen=())


def deberta_v2() -> Family:
    relative = {
        "relative_attention": True,
        "pos_att_type": "p2c|c2p",
        "position_biased_input": False,
        "position_buckets": 8,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
    }
    cases = heads("DebertaV2") + of_base(
        "DebertaV2",
        no_buckets={"position_buckets": -1},
        span={"max_relative_positions": 16},
        own_keys={"share_att_key": False},
        own_keys_c2p={"share_att_key": False, "pos_att_type": ["c2p"]},
        own_keys_p2c={"share_att_key": False, "pos_att_type": ["p2c"]},
        c2p={"pos_att_type": ["c2p"]},
        p2c={"pos_att_type": "p2c"},
        no_norm={"norm_rel_ebd": "none"},
        absolute={"relative_attention": False, "position_biased_input": True, "pos_att_type": []},
        biased={"position_biased_input": True},
        types={"type_vocab_size": 2},
        narrow={"embedding_size": 16},
        relu={"hidden_act": "relu"},
        epsilon={"layer_norm_eps": 1e-3},
    )
    cases.append(Case("neither", "DebertaV2Model", {"pos_att_type": []}, unseen=("rel_embeddings", r"encoder\.LayerNorm")))
    cases.append(untied("DebertaV2"))
    base = SIZES | relative | {"model_type": "deberta-v2", "max_position_embeddings": 40, "type_vocab_size": 0}
    refuse = [
        ("attention_head_size", {"attention_head_size": 12}),
        ("conv_kernel_size", {"conv_kernel_size": 3, "conv_act": "gelu"}),
        ("legacy", {"legacy": False, "architectures": ["DebertaV2ForMaskedLM"]}),
    ]
    for case in cases:
        if "p2c" not in (base | case.fields)["pos_att_type"]:
            # What all keys have in common changes no softmax.
            case.unseen += (r"\.key_proj\.bias", r"encoder\.LayerNorm\.bias")
        if not (base | case.fields)["relative_attention"]:
            case.unseen += (r"encoder\.LayerNorm",)
    return Family("deberta_v2", base, cases, refuse, prefix="deberta.", unseen=(r"pos_key_proj\.bias",))


BART = {
    "vocab_size": 128,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 40,
}


def bart() -> Family:
    cases = [
        Case("base", "BartModel", bare=True),
        Case("sequence", "BartForSequenceClassification"),
        Case("question", "BartForQuestionAnswering"),
        Case("scaled", "BartForSequenceClassification", {"scale_embedding": True}),
        Case("start", "BartForSequenceClassification", {"decoder_start_token_id": 5}),
        Case("relu", "BartForSequenceClassification", {"activation_function": "relu"}),
        Case("heads", "BartForSequenceClassification", {"encoder_attention_heads": 2, "decoder_attention_heads": 8}),
        Case("deeper", "BartForSequenceClassification", {"decoder_layers": 1}),
    ]
    base = BART | {"model_type": "bart"}
    unseen = (r"\.k_proj\.bias", r"final_logits_bias")
    return Family("bart", base, cases, [], prefix="model.", padding=1, padded_inside=False, end=2, unseen=unseen)


def mbart() -> Family:
    cases = [
        Case("base", "MBartModel", bare=True),
        Case("sequence", "MBartForSequenceClassification"),
        Case("question", "MBartForQuestionAnswering"),
        Case("scaled", "MBartForSequenceClassification", {"scale_embedding": True}),
    ]
    base = BART | {"model_type": "mbart"}
    family = bart()
    gains = {"down": 4.0}
    return Family("mbart", base, cases, [], prefix="model.", padding=1, padded_inside=False, end=2, gains=gains, unseen=family.unseen)


def roformer() -> Family:
    cases = heads("RoFormer") + of_base(
        "RoFormer",
        rotary_value={"rotary_value": True},
        as_wide={"embedding_size": 32},
        relu={"hidden_act": "relu"},
        epsilon={"layer_norm_eps": 1e-3},
    )
    cases += [untied("RoFormer"), Case("sequence-relu", "RoFormerForSequenceClassification", {"hidden_act": "relu"})]
    base = SIZES | {"model_type": "roformer", "embedding_size": 16, "max_position_embeddings": 40}
    # Rotation makes the bias of keys depend on the distance.
    return Family("roformer", base, cases, NOT_ENCODERS[:1], prefix="roformer.", unseen=())


def nomic_bert() -> Family:
    base = {
        "model_type": "nomic_bert",
        "vocab_size": 128,
        "n_embd": 32,
        "n_head": 4,
        "n_layer": 2,
        "n_inner": 48,
        "n_positions": 64,
        "type_vocab_size": 2,
        "activation_function": "swiglu",
        "layer_norm_epsilon": 1e-12,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "qkv_proj_bias": False,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "prenorm": False,
        "causal": False,
    }
    # Published checkpoints name the code that they bring.
    code = {"auto_map": {"AutoModel": "modeling_hf_nomic_bert.NomicBertModel"}}
    cases = [Case("base", "NomicBertModel", code, bare=True)]
    cases += of_base(
        "NomicBert",
        biases={"qkv_proj_bias": True, "mlp_fc1_bias": True, "mlp_fc2_bias": True},
        half={"rotary_emb_fraction": 0.5},
        theta={"rotary_emb_base": 10000},
        interleaved={"rotary_emb_interleaved": True},
        geglu={"activation_function": "geglu"},
        gelu={"activation_function": "gelu"},
        no_types={"type_vocab_size": 0},
        epsilon={"layer_norm_epsilon": 1e-3},
    )
    refuse = [
        ("prenorm", {"prenorm": True}),
        ("causal", {"causal": True}),
        ("rotary_scaling_factor", {"rotary_scaling_factor": 2.0}),
        ("rotary_emb_fraction", {"rotary_emb_fraction": 0.0}),
        ("num_experts", {"num_experts": 8, "moe_every_n_layers": 2}),
    ]
    return Family("nomic_bert", base, cases, refuse, prefix="bert.", gains={"down": 4.0}, unseen=())


FAMILIES = [
    bert, roberta, distilbert, albert, electra, mpnet, t5, modernbert, deberta, deberta_v2, bart, mbart, roformer,
    nomic_bert,
]  # fmt: skip
