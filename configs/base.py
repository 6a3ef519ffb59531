"""Every setting of a run, with its default: the only place that holds defaults.

Each line says what the setting means, its unit and its legal values; `sparsejax.config` checks them before anything
compiles, the bounds that the lines do not name too (sparsejax/legal_values.py). The six sizes of the model have no
default. Other configs, wherever they are, start from this one and change a few lines:

    from configs.base import get_config as base

Any setting can be changed on the command line, for example `--config.optim.lr=2e-3 --config.topology.block='(32, 32)'`.
A resumed run may change only what does not decide what is learned (`sparsejax.config.FREE_ON_RESUME`).
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """The settings of all rooms; complete but for the sizes of the model."""
    return ConfigDict(
        {
            "model": model(),
            "topology": topology(),
            "optim": optim(),
            "init": init(),
            "data": data(),
            "train": train(),
            "mesh": mesh(),
            "outer": outer(),
            "seeds": seeds(),
        }
    )


def model() -> ConfigDict:
    """Shape and numerics of the LLaMA decoder."""
    c = ConfigDict()
    c.size = "custom"  # name of the size, recorded in the results; any text
    c.hidden = placeholder(int)  # width of the residual stream; a multiple of block sides x shards
    c.mlp = placeholder(int)  # inner width of the SwiGLU layer; rounded up to a multiple of block sides x shards
    c.heads = placeholder(int)  # query heads; at least 1
    c.kv_heads = placeholder(int)  # key and value heads; divides heads (fewer is grouped-query attention)
    c.head_dim = placeholder(int)  # width of one head; even
    c.layers = placeholder(int)  # decoder layers; at least 1
    c.rope_base = 1e4  # base of the rotary frequencies; above 1
    c.rope_scaling = "none"  # stretches rotary frequencies for longer text: none, linear, llama3
    c.rope_factor = 1.0  # how much they are stretched, for linear and llama3; at least 1
    c.rope_low_frequency = 1.0  # llama3: fewer turns than this over the original length are fully stretched
    c.rope_high_frequency = 4.0  # llama3: more turns than this are left alone; above rope_low_frequency
    c.rope_original_length = 8192  # llama3: tokens of the length the frequencies were made for
    c.rms_eps = 1e-6  # added to the mean square in RMSNorm; in (0, 1)
    c.tied_head = False  # the head shares the embedding's weights: True, False
    c.init_std = 0.02  # standard deviation of the first weights; above 0
    c.init = "normal"  # first weights of sparse parts: normal, density_aware (init_std / sqrt(density))
    c.compute_dtype = "bfloat16"  # of matrix products and activations: bfloat16, float32; parameters are float32
    c.remat = "none"  # activations recomputed in the backward pass: none, dots (all but products), full (a layer each)
    # block product: auto (measured), reference, transient, xla, bcoo, batched, pallas_tpu, pallas_gpu
    c.implementation = "auto"  # which of them, see above
    c.attention = "auto"  # attention kernel: auto (fused where it can be), xla (everywhere), splash (TPU), cudnn (GPU)
    return c


def topology() -> ConfigDict:
    """Which blocks exist and how that changes."""
    c = ConfigDict()
    c.density = 0.25  # share of active weights in attention and MLP; in (0, 1], 1 is dense
    c.block = (16, 16)  # rows and columns of a block, in weights; sides divide the widths, (1, 1) is unstructured
    c.shards = 1  # equal shares per weight, each with the same count, for tensor parallelism; at least 1
    c.balance = "none"  # equal counts per block column too: none, column
    c.allocation = "uniform"  # density per weight: uniform, erk (sparser the larger the weight)
    c.attention_mlp_ratio = 1.0  # density of attention over density of MLP, at the same total; above 0
    c.rules = ()  # exceptions, first match counts: ("<regex on attention.q ... mlp.down>=<density>",)
    c.method = "smet"  # name of a row of sparsejax/topology/methods.py, recorded in the results
    # none (fixed), magnitude (smallest sum of |w|), taylor (smallest sum of (w g)^2), threshold (mean |w| at most
    # drop_threshold), inverse (largest sum of |w|: a sanity check), sign (half the smallest positive, half the negative
    # nearest to zero), soft (kept with odds |w|^temperature), global_magnitude (one ranking of all weights)
    c.drop = "magnitude"  # which blocks leave, see above
    # none, random, gradient (largest sum of |g| of the batch), gradient_sum (the same over the last score_steps steps,
    # among twice as many places, those largest at the first of these steps), momentum (moving average of the gradient
    # scores), momentum_neuron (the same, shared out by the mean of each output column), mix (a share by gradient, the
    # rest random)
    c.grow = "random"  # which blocks come, see above
    c.every = 100  # optimizer steps between rewirings; at least 1
    c.rate = 0.3  # share of active blocks replaced at the first rewiring; in [0, 1)
    c.rate_end = 0.005  # rate_schedule=cosine or linear: that share at the last rewiring; in [0, rate]
    # path of that share: cosine and linear to rate_end, constant, wsd (rate for 90 % of the way, then to a tenth of it)
    c.rate_schedule = "cosine"  # cosine, linear, constant, wsd (which ends at a tenth of rate), see above
    c.stop_fraction = 1.0  # fraction of the steps after which the topology stays; in [0, 1]
    c.regrow_dropped = False  # a block may come back in the rewiring that dropped it: True, False
    c.regrow_value = "zero"  # weights of a regrown block: zero, keep (the old ones, if dropped just now), init (drawn)
    # at most rate of the blocks; at 0 only blocks of zeros go
    c.drop_threshold = 0.0  # drop=threshold: mean |w| up to which a block may go, see above; at least 0
    c.temperature = 1.0  # drop=soft: first exponent of |w|; at least 0, 0 is a uniform draw
    c.temperature_end = 3.0  # drop=soft: last exponent, reached linearly; at least 0
    c.fade_steps = 0  # steps before a rewiring in which the blocks about to go fade out; below every, 0 is off
    c.mix = 0.5  # grow=mix: share grown by gradient, the rest at random; in [0, 1]
    c.score_steps = 1  # last steps before a rewiring whose gradient scores count; at least 1, at most every
    c.score_decay = 0.9  # grow=momentum: decay of the moving average per scored step; in [0, 1]
    c.capacity_slack = 1.5  # drop=global_magnitude: slots of a weight over its active blocks at the start; at least 1
    c.density_start = 0.999  # density at step 0 unless density_schedule=constant; in [density, 1]
    c.density_schedule = "constant"  # path down to density, up to stop_fraction: constant, cosine, linear, cubic
    c.storage = "packed"  # packed (active blocks), dense_master (all weights, N:M mask), monarch (two factors)
    c.nm = (2, 4)  # storage=dense_master: the largest N of every M weights along the inputs are used
    c.ste_decay = 2e-4  # dense_master without a flow: pull of unused weights to zero (SR-STE's lambda); at least 0
    c.flow = "none"  # dense_master: how N:M comes: none (at once), mask_linear, mask_exp, structure (M-1:M to N:M)
    c.flow_start = 0.1  # fraction of the steps that are dense before the flow; in [0, 1]
    c.flow_end = 0.75  # fraction of the steps from which N:M is exact; in [flow_start, 1]
    return c


def optim() -> ConfigDict:
    """Sparse Adam and the learning rate."""
    c = ConfigDict()
    c.form = "smet"  # smet (the paper's sparse Adam), smet_code (its published code), naive (Adam), galore (if dense)
    c.lr = 1e-3  # peak learning rate of a dense weight; above 0
    c.schedule = "cosine"  # shape after the warm-up: cosine, linear, wsd, constant, cosine_restarts
    c.warmup_fraction = 0.1  # fraction of the steps in which the rate rises linearly; in [0, 1]
    c.min_ratio = 0.1  # last rate over peak rate; in [0, 1]
    c.decay_fraction = 0.1  # wsd only: fraction of the steps in which the rate falls; in [0, 1]
    c.restarts = 1  # cosine_restarts only: number of cosines; at least 1
    c.b1 = 0.9  # decay of the first moment per update; in [0, 1)
    c.b2 = 0.999  # decay of the second moment per update; in [0, 1)
    c.eps = 1e-8  # added to the root of the second moment; above 0
    # with its density in that step where density_schedule lets it fall, else with its density at the start
    c.density_exponent = 0.5  # p in the rate of a sparse weight, lr * density ** -p, see above; at least 0, 0 is off
    c.vocabulary_lr_ratio = 1.0  # rate of embedding and head over that of a dense weight; above 0
    c.ramp = 100  # updates in which a regrown block's rate rises to the full one; at least 1
    c.weight_decay = 0.0  # share of a weight lost per step and unit of rate, not on norms and embedding; at least 0
    c.clip = 1.0  # largest global norm of the gradient; at least 0, 0 is off
    c.moment_dtype = "float32"  # of Adam's moments: float32, bfloat16 (stochastically rounded)
    # An average of the weights, b^k for the weights of k updates ago; kept beside them in float32: evaluate, generate
    # and export take it with --weights=ema. It changes nothing in what is trained.
    c.ema_decay = 0.0  # b of that average; in [0, 1), 0 keeps none
    c.galore_rank = 64  # form=galore: rank of the projected gradients; at least 1
    c.galore_every = 200  # form=galore: steps between new projections; at least 1
    return c


def init() -> ConfigDict:
    """Where the first weights come from: a draw, or a dense checkpoint that is made sparse (docs/FROM_DENSE.md)."""
    c = ConfigDict()
    # directory of a LLaMA checkpoint: Hugging Face's, an export, or a run; unset sizes of the model are taken from it
    c["from"] = ""  # the dense weights to start from, see above; empty draws them
    # magnitude (largest sum of |w|), activation (largest sum of |w| times the norm of what it multiplies)
    c.criterion = "magnitude"  # which blocks of the dense weights stay, see above
    c.calibration_tokens = 131_072  # criterion=activation: training tokens that are measured; at least 1
    c.same_tokenizer = True  # a checkpoint whose tokenizer is not that of the data is refused: True, False
    c.distill_weight = 0.0  # share of the loss that is the divergence from the dense start; in [0, 1], 0 is off
    c.distill_temperature = 1.0  # both logits are divided by it for that; above 0
    c.feature_weight = 0.0  # weight of the squared distance to the dense start's layers; at least 0, 0 is off
    return c


def data() -> ConfigDict:
    """Text, tokenizer and the budget of unique tokens."""
    c = ConfigDict()
    # stdlib (Python's own sources, read in place), text, jsonl, parquet, arrayrecord, tfrecord (both as TensorFlow
    # Datasets writes them), hf (the library datasets), tokens (a token set: what `sparsejax tokenize` wrote)
    c.source = "stdlib"  # where text comes from, see above
    # files, URIs (gs://, s3://, hf://) or patterns of them, comma-separated; for hf name[:configuration][@split]; for
    # tokens the directory or URI of the set; empty for stdlib
    c.path = ""  # the training text, see above
    c.validation_path = ""  # the same for the validation text; empty: validation_fraction of the documents of path
    c.validation_fraction = 0.05  # share of the documents held out, chosen by their content; in (0, 1)
    c.text_field = "text"  # field or column that holds the text, for all sources of files but text, and hf
    c.tokenizer = "bpe"  # bpe (trained on the corpus), byte, sentencepiece (a .model file), hf (a tokenizer.json file)
    c.tokenizer_path = ""  # file of a sentencepiece or hf tokenizer; empty for the others, and for the one of tokens
    c.vocab_size = 8192  # tokens of the bpe to train; the other tokenizers bring their own number
    c.sequence_length = 256  # tokens of a row; at least 2
    c.unique_tokens = 0  # budget of distinct training tokens, rounded down to whole rows; 0 is the whole corpus
    c.reshuffle_each_epoch = True  # each pass over the budget has its own order: True, False
    c.cache_dir = ""  # directory of tokenised corpora and tokenizers; empty: $SPARSEJAX_CACHE or the user's cache
    return c


def train() -> ConfigDict:
    """Length, batch and bookkeeping. Exactly one of steps and epochs is above 0; either way at most 2^24 steps."""
    c = ConfigDict()
    c.steps = 10_000  # optimizer steps; at least 0, 0 if epochs counts
    c.epochs = 0  # passes over the unique tokens; at least 0, 0 if steps counts
    c.batch_size = 64  # rows of one optimizer step; at least 1
    c.microbatches = 1  # equal parts the batch is computed in, to save memory; divides batch_size
    c.z_loss = 0.0  # weight of log(sum(exp(logits))) ** 2 in the loss; at least 0, 0 is off
    c.loss_chunk = 8192  # tokens whose logits exist at a time, to save memory; at least 0, 0 is the whole microbatch
    c.nonfinite_limit = 10  # skipped steps in a row (non-finite loss or gradient) that end the run; at least 1
    c.log_every = 10  # steps per logged line; at least 1
    c.eval_every = 500  # steps between evaluations; at least 0, 0 evaluates at the end only
    c.eval_tokens = 500_000  # validation tokens of one evaluation, always the same ones; at least 1
    c.checkpoint_every = 500  # steps between checkpoints; at least 1
    c.keep_last = 2  # newest checkpoints kept; at least 1
    c.keep_every = 0  # steps divisible by this keep their checkpoint for good; at least 0, 0 keeps none
    c.profile_start = 0  # first step of the profile; at least 0
    c.profile_steps = 0  # steps of the profile; at least 0, 0 is off
    # auto is sparsejax/compiled in $XDG_CACHE_HOME or ~/.cache, unless JAX_COMPILATION_CACHE_DIR names another.
    c.compile_cache = "auto"  # directory of compiled programs, reused between runs: auto, a path or URI; empty is off
    return c


def mesh() -> ConfigDict:
    """How devices share the work; nothing here changes what is learned, but for `replica` where `outer.every` > 1."""
    c = ConfigDict()
    c.replica = 1  # copies of all weights, each with rows of its own; at least 1; the axis for slow links
    c.fsdp = 0  # devices that cut weights and optimizer state and have rows of their own; 0 is all that are left
    c.tensor = 1  # devices that cut every product; at least 1, divides topology.shards, heads and kv_heads
    c.sequence = False  # activations between the products are cut along tokens over the tensor axis: True, False
    return c


def outer() -> ConfigDict:
    """Replicas that train apart and meet over a slow link (SparseLoCo, arXiv 2508.15706): sparsejax/training/outer.py.

    The paper sends 1-3 % of the entries in 2 bits. Chunks are cut from what a device holds of a weight.
    """
    c = ConfigDict()
    c.every = 1  # steps between meetings; at least 1, 1 sums gradients every step; divides topology.every
    c.top = 0.03125  # share of the entries of every chunk that is sent, the largest; in (0, 1]
    c.chunk = 4096  # most entries of a chunk; at least 1, 4096 names an entry in 12 bits
    c.bits = 2  # of a sent entry: 2 (a sign and one of two magnitudes of its chunk), 32 (as it is)
    c.beta = 0.95  # share of what was not sent that is added to what is sent next; in [0, 1]
    # The mean of an entry is over all (replicas, the paper's formula), those that sent it (senders), or the embedding's
    c.mean = "embedding_senders"  # over those that sent them, others over all: replicas, senders, embedding_senders
    c.lr = 1.0  # share of that mean which the synced weights take; above 0
    return c


def seeds() -> ConfigDict:
    """Independent seeds, so that one can vary while the others stay."""
    c = ConfigDict()
    c.init = 0  # of the first weights; a whole number from -2^31 to 2^32 - 1
    c.topology = 0  # of the first topology and of growth; a whole number from -2^31 to 2^32 - 1
    c.data = 0  # of the order of the rows; a whole number from -2^31 to 2^32 - 1
    return c
