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
    # Whether a class that tells the next token is asked to go on.
    greedy: bool = True


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


# What decoders have in common.
DECODER = SIZES | {"num_key_value_heads": 2, "max_position_embeddings": 128}
# Embeddings of a size at which tied ones tell tokens apart.
TELLING = {"embedding": 0.3, "down": 4.0}


def of_next(architecture: str, **fields: dict) -> list[Case]:
    """A case of the class that tells the next token per configuration."""
    return [Case(name.replace("_", "-"), architecture, fields) for name, fields in fields.items()]


def scaled(kind: str, **fields: object) -> dict:
    return {"rope_scaling": {"rope_type": kind} | fields}


def gpt2() -> Family:
    cases = [Case("base", "GPT2Model", bare=True), Case("causal", "GPT2LMHeadModel")]
    # The hub's first checkpoints have no prefix.
    cases.append(Case("causal-bare", "GPT2LMHeadModel", bare=True, same_as="causal"))
    cases += of_next(
        "GPT2LMHeadModel",
        untied={"tie_word_embeddings": False},
        inner={"n_inner": 48},
        relu={"activation_function": "relu"},
        gelu={"activation_function": "gelu"},
        epsilon={"layer_norm_epsilon": 1e-3},
        heads={"n_head": 2},
        unscaled={"scale_attn_weights": False},
        by_layer={"scale_attn_by_inverse_layer_idx": True},
    )
    base = {"model_type": "gpt2", "vocab_size": 128, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    refuse = [("add_cross_attention", {"add_cross_attention": True})]
    return Family("gpt2", base, cases, refuse, prefix="transformer.", gains=TELLING, unseen=())


def gpt_neox() -> Family:
    cases = [Case("base", "GPTNeoXModel", bare=True), Case("causal", "GPTNeoXForCausalLM")]
    cases += of_next(
        "GPTNeoXForCausalLM",
        tied={"tie_word_embeddings": True},
        one_by_one={"use_parallel_residual": False},
        all_columns={"rotary_pct": 1.0},
        half={"rotary_pct": 0.5},
        theta={"rotary_emb_base": 100, "rotary_pct": 1.0},
        no_bias={"attention_bias": False},
        tanh={"hidden_act": "gelu_new"},
        epsilon={"layer_norm_eps": 1e-3},
        linear=scaled("linear", factor=4.0),
    )
    base = SIZES | {"model_type": "gpt_neox", "max_position_embeddings": 128}
    refuse = [("rotary_pct", {"rotary_pct": 0.2}), ("rope_scaling", scaled("other", factor=2.0))]
    return Family("gpt_neox", base, cases, refuse, prefix="gpt_neox.", gains=TELLING, unseen=())


def opt() -> Family:
    cases = [Case("base", "OPTModel", bare=True), Case("causal", "OPTForCausalLM")]
    cases += of_next(
        "OPTForCausalLM",
        untied={"tie_word_embeddings": False},
        behind={"do_layer_norm_before": False},
        narrow={"word_embed_proj_dim": 16},
        no_last_norm={"_remove_final_layer_norm": True},
        no_bias={"enable_bias": False},
        gelu={"activation_function": "gelu"},
    )
    sizes = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48}
    base = sizes | {"model_type": "opt", "max_position_embeddings": 128}
    unseen = (r"\.k_proj\.bias",)
    refuse = [("layer_norm_elementwise_affine", {"layer_norm_elementwise_affine": False})]
    return Family("opt", base, cases, refuse, prefix="model.", padding=1, gains=TELLING, unseen=unseen)


def llama() -> Family:
    low = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    far = {"short_factor": [1.0, 1.5, 2.0, 4.0], "long_factor": [2.0, 3.0, 5.0, 9.0]}
    cases = [Case("base", "LlamaModel", bare=True), Case("causal", "LlamaForCausalLM")]
    cases += of_next(
        "LlamaForCausalLM",
        tied={"tie_word_embeddings": True},
        attention_bias={"attention_bias": True},
        mlp_bias={"mlp_bias": True},
        one_kv_head={"num_key_value_heads": 1},
        all_kv_heads={"num_key_value_heads": None},
        head_dim={"head_dim": 12},
        gelu={"hidden_act": "gelu"},
        epsilon={"rms_norm_eps": 1e-3},
        theta={"rope_theta": 100.0},
        linear=scaled("linear", factor=4.0),
        linear_by_its_old_name={"rope_scaling": {"type": "linear", "factor": 2.0}},
        dynamic=scaled("dynamic", factor=2.0),
        yarn=scaled("yarn", factor=4.0, original_max_position_embeddings=32),
        yarn_fast=scaled("yarn", factor=4.0, beta_fast=4.0, beta_slow=0.5, mscale=1.2, mscale_all_dim=0.5),
        yarn_factor=scaled("yarn", factor=2.0, attention_factor=0.7, truncate=False, original_max_position_embeddings=64),
        llama3=scaled("llama3", factor=8.0, **low),
        longrope=scaled("longrope", **far) | {"original_max_position_embeddings": 64},
        longrope_factor=scaled("longrope", factor=2.0, attention_factor=1.1, **far),
    )
    for case in cases:
        if case.name == "dynamic":
            case.same_as = "causal"
        elif case.name == "longrope":
            # Angles change when a text grows beyond the length of first training.
            case.greedy = False
    refuse = [
        ("sliding_window", {"sliding_window": 8}),
        ("layer_types", {"layer_types": ["full_attention"] * 2}),
        ("partial_rotary_factor", {"partial_rotary_factor": 0.5}),
        ("num_key_value_heads", {"num_key_value_heads": 3}),
        ("rope_scaling", scaled("other", factor=2.0)),
        ("factor", scaled("linear")),
        ("short_factor", scaled("longrope", factor=2.0, long_factor=far["long_factor"])),
    ]
    base = DECODER | {"model_type": "llama"}
    return Family("llama", base, cases, refuse, prefix="model.", gains=TELLING, unseen=())


def mistral() -> Family:
    cases = [Case("base", "MistralModel", bare=True), Case("causal", "MistralForCausalLM")]
    cases += of_next(
        "MistralForCausalLM",
        tied={"tie_word_embeddings": True},
        no_window={"sliding_window": None},
        wider={"sliding_window": 20},
        head_dim={"head_dim": 12},
        theta={"rope_theta": 100.0},
    )
    base = DECODER | {"model_type": "mistral", "sliding_window": 6}
    refuse = [("layer_types", {"layer_types": ["full_attention"] * 2}), ("sliding_window", {"sliding_window": 0})]
    return Family("mistral", base, cases, refuse, prefix="model.", gains=TELLING, unseen=())


def qwen2() -> Family:
    cases = [Case("base", "Qwen2Model", bare=True), Case("causal", "Qwen2ForCausalLM")]
    kinds = ["sliding_attention", "full_attention"]
    cases += of_next(
        "Qwen2ForCausalLM",
        tied={"tie_word_embeddings": True},
        theta={"rope_theta": 100.0},
        windows={"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
        kinds={"use_sliding_window": True, "sliding_window": 6, "layer_types": kinds},
        yarn=scaled("yarn", factor=4.0, original_max_position_embeddings=32),
    )
    base = DECODER | {"model_type": "qwen2"}
    refuse = [("layer_types", {"layer_types": ["chunked_attention"] * 2}), ("sliding_window", {"layer_types": kinds})]
    return Family("qwen2", base, cases, refuse, prefix="model.", gains=TELLING, unseen=())


def qwen3() -> Family:
    cases = [Case("base", "Qwen3Model", bare=True), Case("causal", "Qwen3ForCausalLM")]
    cases += of_next(
        "Qwen3ForCausalLM",
        tied={"tie_word_embeddings": True},
        biases={"attention_bias": True},
        usual_width={"head_dim": 8},
        windows={"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
        epsilon={"rms_norm_eps": 1e-2},
    )
    base = DECODER | {"model_type": "qwen3", "head_dim": 12}
    return Family("qwen3", base, cases, [], prefix="model.", gains=TELLING, unseen=())


def gemma() -> Family:
    cases = [Case("base", "GemmaModel", bare=True), Case("causal", "GemmaForCausalLM")]
    cases += of_next(
        "GemmaForCausalLM",
        untied={"tie_word_embeddings": False},
        biases={"attention_bias": True},
        gelu={"hidden_act": "gelu"},
        silu={"hidden_act": "silu"},
        theta={"rope_theta": 100.0},
    )
    base = DECODER | {"model_type": "gemma", "head_dim": 12}
    return Family("gemma", base, cases, [], prefix="model.", gains=TELLING, unseen=())


def gemma2() -> Family:
    cases = [Case("base", "Gemma2Model", bare=True), Case("causal", "Gemma2ForCausalLM")]
    cases += of_next(
        "Gemma2ForCausalLM",
        untied={"tie_word_embeddings": False},
        no_caps={"attn_logit_softcapping": None, "final_logit_softcapping": None},
        usual_caps={"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        biases={"attention_bias": True},
        scale={"query_pre_attn_scalar": 24},
        window={"sliding_window": 20},
        kinds={"layer_types": ["full_attention", "sliding_attention"]},
        silu={"hidden_activation": "silu"},
    )
    caps = {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 12.0}
    base = DECODER | caps | {"model_type": "gemma2", "head_dim": 12, "query_pre_attn_scalar": 12, "sliding_window": 6}
    refuse = [("final_logit_softcapping", {"final_logit_softcapping": -1.0})]
    return Family("gemma2", base, cases, refuse, prefix="model.", gains=TELLING, unseen=())


def gemma3() -> Family:
    cases = [Case("base", "Gemma3TextModel", bare=True), Case("causal", "Gemma3ForCausalLM")]
    cases.append(Case("both-sides", "Gemma3TextModel", {"use_bidirectional_attention": True}))
    cases += of_next(
        "Gemma3ForCausalLM",
        untied={"tie_word_embeddings": False},
        pattern={"sliding_window_pattern": 3},
        kinds={"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]},
        local={"rope_local_base_freq": 100.0},
        theta={"rope_theta": 100.0},
        linear=scaled("linear", factor=4.0),
        scale={"query_pre_attn_scalar": 24},
        cap={"final_logit_softcapping": 4.0},
    )
    base = DECODER | {"model_type": "gemma3_text", "head_dim": 12, "query_pre_attn_scalar": 12}
    base |= {"num_hidden_layers": 3, "sliding_window": 6, "sliding_window_pattern": 2, "rope_theta": 10000.0}
    base |= {"rope_local_base_freq": 1000.0}
    causal = {"architectures": ["Gemma3ForCausalLM"]}
    refuse = [("use_bidirectional_attention", {"use_bidirectional_attention": True} | causal)]
    return Family("gemma3", base, cases, refuse, prefix="model.", gains=TELLING, unseen=())


DECODERS = [gpt2, gpt_neox, opt, llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3]
FAMILIES = [
    bert, roberta, distilbert, albert, electra, mpnet, t5, modernbert, deberta, deberta_v2, bart, mbart, roformer,
    nomic_bert, *DECODERS,
]  # fmt: skip
