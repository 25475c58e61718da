"""The chat model: an honest extractive reader, fitted on the spot, whose every reply depends on its whole prompt."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

from embedding import stem, words
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCall, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

PASSAGE = re.compile(r"^(?=\[\d+\] )", re.MULTILINE)
SENTENCE_END = re.compile(r"(?<=[.!?:])\s+(?=[A-Z`'\"(])|\n\s*\n")
CODE = re.compile(
    r"[\w.]+\s?\(|>>>|(import|from|for|with|def|class) .*\n"
)  # a line of code, not a sentence to answer with
DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
QUOTED = re.compile(r'"([^"]+)"')
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}


def token_count(text: str) -> int:
    """Words and punctuation marks: what this model bills as tokens."""
    return len(re.findall(r"\w+|[^\w\s]", text))


@dataclass
class Passage:
    """A piece of the context: an earlier turn, one "[n] heading / text" block, or the result of a tool."""

    heading: str
    text: str
    label: str = ""
    known_as: str = ""  # for a tool's result: what its tool says of itself

    @property
    def name(self) -> str:
        """The dotted name that the passage is about, "" where none is told."""
        return match[0] if (match := DOTTED.search(self.text if self.known_as else self.heading)) else ""

    def sentences(self) -> list[str]:
        if self.known_as:
            return [self.text]
        found = (sentence.strip() for sentence in SENTENCE_END.split(self.text))
        return [sentence for sentence in found if len(sentence.split()) >= 3 and not CODE.match(sentence)]


@dataclass
class Candidate:
    """A sentence that could be the answer. `covered` is the share of the question that it covers, in [0, 1]."""

    sentence: str
    passage: Passage
    covered: float
    score: float


@dataclass
class Prompt:
    """What the reader sees: instruction (system), question (last human turn, first paragraph), context (all else)."""

    instruction: str
    question: str
    passages: list[Passage]

    def instruction_for_this(self) -> str:
        """The instruction less its conditional sentences ("Where it asks ...") that share no word with the question."""
        sentences = re.split(r"(?<=[.!])\s+", self.instruction)
        asked = set(words(self.question))
        return " ".join(it for it in sentences if not re.match("If|Where|When", it) or asked & set(words(it)))

    @classmethod
    def of(cls, messages: Sequence[BaseMessage], tools: Sequence[dict[str, Any]]) -> Prompt:
        told = {tool["function"]["name"]: tool["function"].get("description", "") for tool in tools}
        instruction, question, passages = [], "", []
        for message in messages:
            text = message.text
            if isinstance(message, SystemMessage):
                instruction.append(text)
            elif isinstance(message, ToolMessage):
                name = message.name or "tool"
                passages.append(Passage("", text, f"[{name}]", known_as=told.get(name) or name))
            elif isinstance(message, HumanMessage):
                passages += [Passage("", question)] if question else []
                question, _, context = text.partition("\n\n")
                blocks = [block.strip() for block in PASSAGE.split(context) if block.strip()]
                for block in blocks:
                    label = match[0] if (match := re.match(r"\[\d+\]", block)) else ""
                    heading, _, rest = block.partition("\n") if label else ("", "", block)
                    passages.append(Passage(heading, rest, label))
            elif text:
                passages.append(Passage("", text))
        return cls(" ".join(instruction), re.sub(r"^\w+:\s*", "", question), passages)


class Reader(BaseChatModel):
    """Not a language model: it copies, it does not compose, and it knows nothing but how rare each word is.

    It was fitted (see `weights`: word stem -> inverse document frequency) on the corpus it will read. It weighs
    whatever its prompt offers against question and instruction together: a word of the question counts by its rarity,
    half as much again where the instruction names it too, and the instruction's own words count beside them. Then

    * two or more short quoted choices in the instruction ("yes", "no"): one of them. Each is weighed with the clause
      that follows it; "yes" also gains the share of the question that the context covers, "no" the share it misses;
    * "keywords" in the instruction: the question's known words, rarest first, and their closest company in the context;
    * a bound tool that the instruction speaks of and whose description covers what the question asks: a call, its
      arguments being dotted names of the question, else of the passages' headings;
    * else as many sentences of the context as the instruction names (one by default), verbatim, best first, each with
      its passage's label. First sentences and names that the question spells out are preferred. Where nothing
      covers enough: the longer quoted reply that the instruction keeps for that, else "Nothing found on: ...".

    Equal prompts give equal replies. It takes no account of word order and understands no negation.
    """

    weights: dict[str, float] = Field(repr=False, exclude=True)
    model: str = "extractive-reader"
    enough: float = 0.5  # the share of the question, in [0, 1], that a sentence must cover to be an answer

    @property
    def _llm_type(self) -> str:
        return "extractive-reader"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        state = hashlib.sha256(json.dumps(self.weights, sort_keys=True).encode()).hexdigest()
        return {"model": self.model, "enough": self.enough, "weights_sha256": state}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """`tool_choice` "any" or a tool's name makes it call one whether or not the question asks for it."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], tool_choice=tool_choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages, stop, **kwargs))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        reply = self._reply(messages, stop, **kwargs)
        for piece in re.findall(r"\S+\s*|\s+", reply.text):
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
        calls = [
            tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
            for index, call in enumerate(reply.tool_calls)
        ]
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                content="",
                tool_call_chunks=calls,
                usage_metadata=reply.usage_metadata,
                response_metadata=reply.response_metadata,
            )
        )

    def _reply(
        self,
        messages: Sequence[BaseMessage],
        stop: list[str] | None,
        *,
        tools: Sequence[dict[str, Any]] = (),
        tool_choice: str | None = None,
        **_: Any,
    ) -> AIMessage:
        prompt = Prompt.of(messages, tools)
        replies = [message for message in messages if isinstance(message, AIMessage)]
        made = [(call["name"], call["args"]) for reply in replies for call in reply.tool_calls]
        choices = [choice for choice in QUOTED.findall(prompt.instruction) if len(choice.split()) <= 3]
        call = self._call(prompt, tools, tool_choice, made)
        text = ""
        if len(choices) >= 2:
            text, call = self._choose(prompt, choices), None
        elif call is None:
            text = self._keywords(prompt) if "keyword" in prompt.instruction.lower() else self._answer(prompt)
        for end in stop or ():
            text = text.partition(end)[0]
        read = sum(map(token_count, [*(message.text for message in messages), *map(json.dumps, tools)]))
        written = token_count(text + (json.dumps(call["args"]) if call else ""))
        return AIMessage(
            text,
            tool_calls=[call] if call else [],
            usage_metadata=UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written),
            response_metadata={"model_name": self.model, "finish_reason": "tool_calls" if call else "stop"},
        )

    def _weight(self, word: str) -> float:
        return self.weights.get(word, max(self.weights.values()))  # an unknown word is as rare as can be

    def _wanted(self, prompt: Prompt) -> dict[str, float]:
        """What the question asks for: each of its words with its weight, raised by the instruction."""
        told = set(words(prompt.instruction))
        return {word: self._weight(word) * (1.5 if word in told else 1.0) for word in words(prompt.question)}

    def _coverage(self, wanted: dict[str, float], found: Set[str], nearby: Set[str] = frozenset()) -> float:
        """The share of what is wanted that was found, in [0, 1]; what stands only nearby counts two thirds."""
        if not wanted:
            return 0.0
        here = sum(weight for word, weight in wanted.items() if word in found)
        near = sum(weight for word, weight in wanted.items() if word in nearby and word not in found)
        return (here + 2 / 3 * near) / sum(wanted.values())

    def _ranked(self, prompt: Prompt) -> list[Candidate]:
        """Every sentence of the context, best first."""
        wanted = self._wanted(prompt)
        told = {word: self._weight(word) for word in words(QUOTED.sub("", prompt.instruction_for_this()))}
        asked = set(DOTTED.findall(prompt.question))
        ranked = []
        for passage in prompt.passages:
            nearby = set(words(passage.name))
            # A docstring's first sentence says what its subject does; a private name is seldom what is meant.
            summary = 0.3 * bool(passage.name and passage.text.startswith(passage.name))
            known = 0.6 * (passage.name in asked) - 0.1 * bool(re.search(r"(^|\.)_", passage.name))
            for position, sentence in enumerate(passage.sentences()):
                found = set(words(sentence + " " + passage.known_as))
                if passage.name in asked:  # what the question names, all its sentences are about
                    found |= nearby
                covered = self._coverage(wanted, found, nearby)
                place = summary if position == 0 else -0.02 * min(position, 5)
                score = covered * (1 + known + place) + 0.65 * self._coverage(told, found)
                ranked.append(Candidate(sentence, passage, covered, score - 0.01 * max(0, len(found) - 15)))
        return sorted(ranked, key=lambda candidate: -candidate.score)

    def _answer(self, prompt: Prompt) -> str:
        number = re.search(rf"\b({'|'.join(NUMBERS)}) sentence", prompt.instruction.lower())
        count = NUMBERS[number[1]] if number else 1
        best = [candidate for candidate in self._ranked(prompt) if candidate.covered >= self.enough][:count]
        if best:
            return "\n".join(f"{candidate.sentence} {candidate.passage.label}".strip() for candidate in best)
        spare = [reply for reply in QUOTED.findall(prompt.instruction) if len(reply.split()) > 3]
        return spare[0] if spare else "Nothing found on: " + " ".join(words(prompt.question))

    def _choose(self, prompt: Prompt, choices: Sequence[str]) -> str:
        wanted = self._wanted(prompt)
        found = {word for passage in prompt.passages for word in words(f"{passage.heading} {passage.text}")}
        covered = self._coverage(wanted, found)
        scores = {}
        for choice in choices:
            clause = re.split(r'"|[.;](?:\s|$)', prompt.instruction.partition(f'"{choice}"')[2])[0]
            told = {word: self._weight(word) for word in words(clause or choice) if word not in wanted}
            by_itself = {"yes": covered, "no": 1 - covered}.get(choice.lower(), 0.0)
            scores[choice] = by_itself + 1.5 * self._coverage(told, found | set(wanted))
        return max(choices, key=lambda choice: scores[choice])

    def _keywords(self, prompt: Prompt) -> str:
        wanted = {word: weight for word, weight in self._wanted(prompt).items() if word in self.weights}
        spelled = {stem(word): word for word in reversed(re.findall(r"[a-z]+", prompt.question.lower()))}
        company: dict[str, float] = {}
        for candidate in self._ranked(prompt)[:12]:
            for word in re.findall(r"[a-z]+", candidate.sentence.lower()):
                if (root := stem(word)) in self.weights and root not in wanted and words(word):
                    company[root] = company.get(root, 0.0) + max(candidate.score, 0.0) * self._weight(root)
                    spelled.setdefault(root, word)
        chosen = sorted(wanted, key=lambda word: -wanted[word])[:6]
        chosen += sorted(company, key=lambda word: -company[word])[:2]
        return " ".join(dict.fromkeys(spelled.get(word, word) for word in chosen))

    def _call(
        self, prompt: Prompt, tools: Sequence[dict[str, Any]], tool_choice: str | None, made: Sequence[tuple[str, Any]]
    ) -> ToolCall | None:
        """The best tool call, None where answering is better."""
        best: ToolCall | None = None
        best_score = 0.5
        told = set(words(prompt.instruction))
        for tool in tools:
            function = tool["function"]
            described = set(words(f"{function['name']} {function.get('description', '')}"))
            arguments = self._arguments(prompt, function.get("parameters", {}))
            if arguments is None or (function["name"], arguments) in made:
                continue
            filled = {word for value in arguments.values() for word in words(str(value))}
            asked = {word: weight for word, weight in self._wanted(prompt).items() if word not in filled}
            score = self._coverage(asked, described) if described & told else 0.0
            if tool_choice in ("any", "required", function["name"]) and not made:
                score += 1.0
            if score >= best_score:
                seen = json.dumps([prompt.question, function["name"], arguments]).encode()
                number = hashlib.sha256(seen).hexdigest()[:12]
                best, best_score = tool_call(name=function["name"], args=arguments, id=f"call_{number}"), score
        return best

    def _arguments(self, prompt: Prompt, schema: dict[str, Any]) -> dict[str, Any] | None:
        """Required string arguments from dotted names, in order of reading; None where there are too few."""
        names = DOTTED.findall(prompt.question)
        asked = set(words(prompt.question))
        names += [passage.name for passage in prompt.passages if asked & set(words(passage.name.rpartition(".")[2]))]
        needed = [name for name in schema.get("required", ()) if schema["properties"][name].get("type") == "string"]
        if len(needed) < len(schema.get("required", ())) or len(names) < len(needed):
            return None
        return dict(zip(needed, dict.fromkeys(names), strict=False))
