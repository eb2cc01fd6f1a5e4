"""SSB: its distillation loss by hand, the alignment of stored logits, LoRA, hints, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn

from baselines.batches import ordered
from baselines.branches import BranchedModel, hidden_and_head, load_causal_lm
from baselines.interface import Batch, Branch, StoredLogits
from baselines.lora import attach, merge
from baselines.replies import VerifiedReply, hinted_prompts, wrong_reply
from baselines.settings import DataSettings, LoRA, TrainingSettings
from baselines.ssb import SSB, distillation
from baselines.teacher import distillation_rows, load_targets, save_targets, teacher_columns
from baselines.trainer import train
from foundation.errors import InputError
from foundation.files import read_jsonl
from foundation.prompts import encode_prompt, terminator_id

TEACHER = torch.tensor([[5.0, 4.0, 3.0, 1.0, 0.0, -2.0]], dtype=torch.float64)
NORMS = ["teacher_renorm", "both_renorm", "tail_bucket"]
DATA = DataSettings(max_length=256)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def stored(logits_NV, top_k, temperature=1.5):
    """What a teacher with these logits stores, written out plainly."""
    top = logits_NV.topk(top_k, dim=-1)
    inside_N = (logits_NV / temperature).softmax(-1).gather(1, top.indices).sum(-1)
    return StoredLogits(top.indices, top.values, (1 - inside_N).clamp(min=1e-8).log(),
                        torch.ones(len(logits_NV), dtype=torch.bool))


def random_logits(tokens=7, vocabulary=9, seed=0):
    return 2 * torch.randn(tokens, vocabulary, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ----------------------------------------------------------------------------------------------------------- loss


def test_qhat_and_its_divergence_by_hand():
    """Oracle 7.1: k = 3, T = 1.5, a uniform student over 6."""
    top = stored(TEACHER, 3)
    qhat = (top.logits_NK / 1.5).softmax(-1)
    assert qhat[0].tolist() == pytest.approx([0.562742, 0.288921, 0.148337], abs=1e-6)
    kl = distillation(torch.zeros(1, 6, dtype=torch.float64), top, 1.5).item()
    assert kl == pytest.approx(0.826428, abs=1e-6)
    assert kl * 1.5**2 == pytest.approx(1.859463, abs=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_all_logits_stored_and_student_equal_teacher_cost_nothing(norm):
    """Oracle 7.2: KL and its gradient are 0."""
    student = random_logits().requires_grad_()
    kl_N = distillation(student, stored(student.detach(), 9), 1.5, norm)
    (gradient,) = torch.autograd.grad(kl_N.sum(), student)
    assert kl_N.abs().max() < 1e-6 and gradient.abs().max() < 1e-6


@pytest.mark.parametrize("top_k", [1, 3, 6])
def test_student_equal_to_teacher_costs_the_missing_mass(top_k):
    """Oracle 7.2: KL = -log of the teacher's softened mass on what is stored; 0 in the other two norms."""
    logits = random_logits()
    top = stored(logits, top_k)
    mass_N = (logits / 1.5).softmax(-1).gather(1, top.ids_NK).sum(-1)
    assert torch.allclose(distillation(logits, top, 1.5), -mass_N.log(), atol=1e-12)
    assert distillation(logits, top, 1.5, "both_renorm").abs().max() < 1e-12
    assert distillation(logits, top, 1.5, "tail_bucket").abs().max() < 1e-9


def test_logits_relative_to_the_largest_are_as_good_as_logits():
    logits, student = random_logits(), random_logits(seed=1)
    top = stored(logits, 4)
    shifted = top._replace(logits_NK=top.logits_NK - top.logits_NK[:, :1])
    for norm in NORMS:
        assert torch.allclose(distillation(student, top, 1.5, norm), distillation(student, shifted, 1.5, norm))


def test_tail_bucket_is_the_divergence_over_k_plus_one_outcomes():
    teacher, student = random_logits(), random_logits(seed=1)
    top = stored(teacher, 3)
    p, q = ((x / 1.5).softmax(-1).gather(1, top.ids_NK) for x in (student, teacher))
    p, q = (torch.cat([x, 1 - x.sum(-1, keepdim=True)], dim=1) for x in (p, q))
    assert torch.allclose(distillation(student, top, 1.5, "tail_bucket"), (q * (q / p).log()).sum(-1), atol=1e-9)


def test_tail_bucket_stays_exact_for_a_student_that_is_sure_of_itself():
    """In float32, 1 minus a mass near 1 is rounding: the rest must come from its own logits."""
    teacher, student = random_logits(), random_logits(seed=1)
    top = stored(teacher, 3)
    student = student.scatter_add(1, top.ids_NK, torch.full_like(top.logits_NK, 30.0))
    leaves = [student.clone().requires_grad_(), student.float().requires_grad_()]
    kls = [distillation(leaf, top, 1.5, "tail_bucket") for leaf in leaves]
    gradients = [torch.autograd.grad(kl.sum(), leaf)[0].double() for kl, leaf in zip(kls, leaves, strict=True)]
    tail_N = top.tail_N.exp()
    assert torch.allclose(kls[1].double(), kls[0], rtol=1e-4) and torch.allclose(gradients[1], gradients[0], atol=1e-4)
    pull = gradients[0].scatter(1, top.ids_NK, 0.0).sum(-1)  # what lies outside the bucket's 3 tokens is pulled up
    assert torch.allclose(pull, -tail_N / 1.5, atol=1e-5)


def mixture(method, logits, labels, teacher):
    hidden_ND = logits.clone().requires_grad_()
    batch = Batch(labels, torch.zeros_like(labels), torch.tensor([20]), [1], teacher)
    loss = method.loss(batch, Branch(hidden_ND, torch.eye(logits.shape[1], dtype=logits.dtype)), None)
    return loss, torch.autograd.grad(loss, hidden_ND)[0]


@pytest.mark.parametrize("t2", [True, False])
def test_gradient_of_the_distillation_part_is_t_times_p_minus_qhat(t2):
    """Oracle 7.3, and the same by finite differences."""
    student, top, labels = random_logits(seed=2), stored(random_logits(), 4), torch.arange(7)
    method = SSB(kd_share=1.0, t2=t2)
    _, gradient = mixture(method, student, labels, top)
    qhat = torch.zeros_like(student).scatter_(1, top.ids_NK, (top.logits_NK / 1.5).softmax(-1))
    factor = 1.5 if t2 else 1 / 1.5
    assert torch.allclose(gradient, factor * ((student / 1.5).softmax(-1) - qhat), atol=1e-10)
    step = torch.zeros_like(student)
    step[3, 5] = 1e-5
    numeric = (mixture(method, student + step, labels, top)[0] - mixture(method, student - step, labels, top)[0]) / 2e-5
    assert gradient[3, 5].item() == pytest.approx(numeric.item(), rel=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_the_loss_is_half_distillation_half_cross_entropy(norm):
    student, labels = random_logits(seed=2), torch.arange(7)
    top = stored(random_logits(), 4)
    loss, gradient = mixture(SSB(topk_norm=norm), student, labels, top)
    ce = torch.nn.functional.cross_entropy(student, labels, reduction="sum")
    kd = distillation(student, top, 1.5, norm).sum()
    assert loss.item() == pytest.approx((0.5 * ce + 0.5 * 2.25 * kd).item(), rel=1e-10)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("norm", NORMS)
def test_tokens_without_stored_logits_have_cross_entropy_only(norm):
    """A-49: the appended end token. Its stored row is empty, which must not turn into NaN."""
    student, labels = random_logits(seed=2), torch.arange(7)
    top = stored(random_logits(), 4)
    empty = StoredLogits(*(torch.cat([column[:6], torch.zeros_like(column[6:])]) for column in top))
    loss, gradient = mixture(SSB(topk_norm=norm), student, labels, empty)
    p = student[6].softmax(-1) - torch.nn.functional.one_hot(labels, 9)[6]
    assert torch.allclose(gradient[6], 0.5 * p, atol=1e-12) and loss.isfinite()
    full, whole = mixture(SSB(topk_norm=norm), student, labels, top)
    assert torch.allclose(gradient[:6], whole[:6]) and full > loss


# ------------------------------------------------------------------------------------------------------- alignment


class CopyModel(nn.Module):
    """Predicts, at each position, the id it reads there: an alignment off by one shows in the stored ids."""

    def __init__(self, vocabulary):
        super().__init__()
        self.head = nn.Linear(vocabulary, vocabulary, bias=False)
        nn.init.eye_(self.head.weight)
        self.base_model = self._hidden

    def _hidden(self, input_ids, attention_mask, use_cache):
        return SimpleNamespace(last_hidden_state=8 * nn.functional.one_hot(input_ids, len(self.head.weight)).float())

    def get_output_embeddings(self):
        return self.head


def kept_reply(token_ids):
    return VerifiedReply("r", token_ids, True, "correct", "1")


@pytest.fixture
def targets(examples, tokenizer, prompt):
    """Rows of three kept replies of different lengths."""

    def _targets(terminator="append", student_prompt="chat_template", data=DATA, end=True):
        last = [terminator_id(tokenizer, prompt)] if end else []
        kept = {e["id"]: kept_reply([40 + i, 50 + i, 60 + i][: 3 - i] + last) for i, e in enumerate(examples[:3])}
        hinted = {e["id"]: f"{e['question']} hint {'x ' * i}" for i, e in enumerate(examples[:3])}
        return distillation_rows(examples[:3], kept, hinted, tokenizer, prompt, data, student_prompt=student_prompt,
                                 terminator=terminator)

    return _targets


def columns_of(model, rows, top_k=4, batch_tokens=10_000):
    return teacher_columns(model, rows, top_k=top_k, temperature=1.5, pad_id=0, batch_tokens=batch_tokens,
                           compute_dtype="float32")


@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_logits_at_p_minus_one_to_p_plus_r_minus_two_are_stored(targets, tokenizer, batch_tokens):
    """Oracle 7.4: the first one is the last prompt position's, whatever the batch."""
    rows = targets()
    columns = columns_of(CopyModel(len(tokenizer)), rows, batch_tokens=batch_tokens)
    expected, stored_at = [], []
    for row in rows:
        read = [row["teacher_ids"][-1], *row["reply"]][:-1]
        expected += [*read, 0]  # nothing is stored for the end token
        stored_at += [True] * len(read) + [False]
    assert columns.ids_NK[:, 0].tolist() == expected and columns.stored_N.tolist() == stored_at
    assert [len(c) for c in columns] == [sum(label != -100 for row in rows for label in row["labels"])] * 4


def test_stored_rows_are_the_teachers_own_logits(tiny_checkpoint, targets):
    rows, model = targets(), load_causal_lm(tiny_checkpoint)
    columns = columns_of(model, rows, top_k=5)
    at = 0
    for row in rows:
        with torch.no_grad():
            logits_SV = model(torch.tensor([row["teacher_ids"] + row["reply"]])).logits[0]
        for t in range(len(row["reply"])):
            own_V = logits_SV[len(row["teacher_ids"]) - 1 + t]
            top = own_V.topk(5)
            assert columns.ids_NK[at].tolist() == top.indices.tolist()
            assert torch.allclose(columns.logits_NK[at].float(), top.values - top.values[0], atol=2e-3)
            tail = 1 - (own_V / 1.5).softmax(-1)[top.indices].sum()
            assert columns.tail_N[at].exp().item() == pytest.approx(tail.item(), abs=1e-5)
            at += 1
        at += 1


def test_the_student_sees_the_plain_problem_and_the_same_reply(targets, examples, tokenizer, prompt):
    end = terminator_id(tokenizer, prompt)
    for row, example in zip(targets(), examples, strict=False):
        plain = encode_prompt(tokenizer, prompt, example["question"])
        assert row["input_ids"] == [*plain, *row["reply"], end] and end not in row["reply"]
        assert row["labels"] == [-100] * len(plain) + [*row["reply"], end]
        assert row["teacher_ids"] != plain
    assert [r["labels"] for r in targets(end=False)] == [r["labels"] for r in targets()]
    assert all(r["labels"][-1] == r["reply"][-1] for r in targets(terminator="none"))
    (concat, *_), (chat, *_) = targets(student_prompt="concat"), targets()
    assert concat["reply"] == chat["reply"] and len(concat["input_ids"]) < len(chat["input_ids"])


def test_long_replies_are_cut_on_the_right_with_their_logits(targets, examples, tokenizer, prompt):
    """A-51."""
    plain = len(encode_prompt(tokenizer, prompt, examples[0]["question"]))
    row = targets(data=DataSettings(max_length=plain + 2))[0]
    assert row["input_ids"][plain:] == row["reply"] == [40, 50]
    assert columns_of(CopyModel(len(tokenizer)), [row]).stored_N.tolist() == [True, True]


def test_targets_survive_the_disk_and_each_row_finds_its_own(targets, tiny_checkpoint, tokenizer, tmp_path):
    rows = targets()
    columns = columns_of(load_causal_lm(tiny_checkpoint), rows)
    mass = save_targets(tmp_path, rows, columns, tokenizer)
    loaded, lines = load_targets(tmp_path, tokenizer), list(read_jsonl(tmp_path / "targets.jsonl"))
    assert all(torch.equal(a.double(), b.double()) for a, b in zip(columns, loaded, strict=True))
    assert loaded.ids_NK.dtype == torch.int64 and [line["teacher_start"] for line in lines] == [0, 4, 7]
    assert mass == pytest.approx(1 - columns.tail_N[columns.stored_N].exp().mean().item()) and 0 < mass < 1


# --------------------------------------------------------------------------------------------------------- refused


def test_logits_of_another_tokenizer_are_refused(targets, tiny_checkpoint, tokenizer, tmp_path):
    rows = targets()
    save_targets(tmp_path, rows, columns_of(load_causal_lm(tiny_checkpoint), rows), tokenizer)
    other = transformers.AutoTokenizer.from_pretrained(tiny_checkpoint, local_files_only=True)
    other.add_tokens(["brand-new"])
    with pytest.raises(InputError, match=r"another tokenizer \(vocabulary hash [0-9a-f]{12}"):
        load_targets(tmp_path, other)


@pytest.mark.parametrize("extra", [1, 1000])
def test_more_logits_than_the_vocabulary_are_refused(targets, tiny_checkpoint, tokenizer, extra):
    with pytest.raises(InputError, match=rf"{len(tokenizer) + extra} logits a token .* {len(tokenizer)}; choose"):
        columns_of(load_causal_lm(tiny_checkpoint), targets(), top_k=len(tokenizer) + extra)


def test_lora_targets_that_the_model_lacks_are_refused_by_name(tiny_checkpoint):
    with pytest.raises(InputError, match=r"modules query, key are not in Qwen3ForCausalLM; its linear layers .*q_proj"):
        attach(load_causal_lm(tiny_checkpoint), LoRA(rank=2, alpha=2, targets=("query", "key", "v_proj")))


# ------------------------------------------------------------------------------------------------------------ LoRA


def test_fresh_adapters_change_nothing_and_only_they_are_trained(tiny_checkpoint, targets, tokenizer, tmp_path):
    """Oracle 7.5; the merged export is a plain model with the trained logits."""
    plain = load_causal_lm(tiny_checkpoint)
    before = {name: p.detach().clone() for name, p in plain.named_parameters()}
    ids_BS = torch.tensor([[5, 6, 7, 8]])
    expected = plain(ids_BS).logits
    torch.manual_seed(0)
    model = BranchedModel(SSB(stored_logits=4), plain)
    model.strong = attach(plain, LoRA(rank=4, alpha=4))
    assert torch.equal(model.strong(ids_BS).logits, expected)
    hidden, head = hidden_and_head(model.strong, ids_BS, torch.ones_like(ids_BS))
    assert torch.allclose(hidden @ head.T, expected, atol=1e-5)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable and all("lora_" in name for name in trainable)

    rows = targets()
    columns = columns_of(load_causal_lm(tiny_checkpoint), rows)
    save_targets(tmp_path, rows, columns, tokenizer)
    training = TrainingSettings(learning_rate=1e-2, global_batch=3, micro_batch=3, weight_decay=0.1, warmup_ratio=0.0)
    chosen = ordered(list(read_jsonl(tmp_path / "targets.jsonl")), training, epochs=4, seed=1)
    log = train(model, chosen, tokenizer, training, seed=1, work=tmp_path / "work",
                teacher=load_targets(tmp_path, tokenizer))
    assert log.losses[-1] < log.losses[0]
    for name, p in plain.named_parameters():
        if "lora_" not in name:
            assert torch.equal(p, before[name.replace(".base_layer", "")]), name
    trained = model.strong(ids_BS).logits
    merged = merge(model.strong)
    assert type(merged) is type(load_causal_lm(tiny_checkpoint)) and set(dict(merged.named_parameters())) == set(before)
    assert torch.allclose(merged(ids_BS).logits, trained, atol=1e-5)
    assert not torch.allclose(trained, expected, atol=1e-3)


# ----------------------------------------------------------------------------------------------------------- hints


def answered(*answers, gold="gold"):
    return [VerifiedReply(f"reply {i} says {a}", [i], True, "correct" if a == gold else "wrong", a)
            for i, a in enumerate(answers)]


def test_the_commonest_wrong_answer_and_the_first_right_one_are_shown():
    """Oracle 7.5: [a, b, b, gold] gives incorrect = b, correct = index 3."""
    replies = answered("a", "b", "b", "gold")
    assert wrong_reply(replies, "majority_wrong", 0, "p") == 1 and wrong_reply(replies, "first", 0, "p") == 0
    (hint,), _ = hinted_prompts([{"id": "p", "question": "Q?"}], {"p": replies}, "{question}|{right}|{wrong}",
                                "majority_wrong", 0)
    assert hint == {"id": "p", "question": "Q?|reply 3 says gold|reply 1 says b", "right": 3, "wrong": 1}


def test_ties_are_drawn_by_seed_and_prompt_alone():
    replies = answered("a", "b", "gold")
    drawn = [wrong_reply(replies, "majority_wrong", 0, f"p{i}") for i in range(40)]
    assert set(drawn) == {0, 1} and drawn == [wrong_reply(replies, "majority_wrong", 0, f"p{i}") for i in range(40)]
    assert 8 < sum(drawn) < 32


def test_prompts_without_both_kinds_are_counted_and_braces_in_replies_survive():
    replies = {"p": answered("gold", "a"), "q": answered("gold"), "r": answered("a", "b")}
    replies["p"][0] = VerifiedReply("\\boxed{1} {x}", [1], True, "correct", "1")
    questions = [{"id": i, "question": "{question}"} for i in replies]
    hints, skipped = hinted_prompts(questions, replies, "{question}/{right}/{wrong}", "majority_wrong", 0)
    assert [h["question"] for h in hints] == ["{question}/\\boxed{1} {x}/reply 1 says a"]
    assert skipped == {"without an incorrect rollout": 1, "without a correct rollout": 1}
    assert len(hints) + sum(skipped.values()) == len(questions)
