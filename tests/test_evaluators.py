"""Evaluators of phrases, questions and detection equal slow references, on ties, nothing and duplicates too."""

import json
from pathlib import Path

import numpy as np
import pytest

from snp.data.annotations import Entry
from snp.errors import InputError
from snp.tasks import average_precision, phrases, vqa


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two boxes given as corners, by the textbook."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


class TestPhrases:
    def sentences(self, seed: int, n: int = 12) -> list[Entry]:
        """Random sentences of up to three phrases with up to three boxes each, on a coarse grid so that boxes meet."""
        rng = np.random.default_rng(seed)
        entries = []
        for i in range(n):
            boxes, spans, evaluated, types = [], [], [], []
            for place in range(int(rng.integers(1, 4))):
                span = ((4 * place, 4 * place + 3),)
                evaluated.append(span)
                types.append(tuple(rng.choice(["people", "scene", "other"], rng.integers(1, 3), replace=False)))
                for _ in range(int(rng.integers(1, 4))):
                    boxes.append((*map(float, rng.integers(0, 4, 2) * 10), *map(float, rng.integers(1, 4, 2) * 10)))
                    spans.append(span)
            entries.append(
                Entry(
                    id=i,
                    file_name="a.jpg",
                    height=90,
                    width=90,
                    caption="aaa bbb ccc ",
                    dataset_name="flickr",
                    boxes=tuple(boxes),
                    spans=tuple(spans),
                    evaluated=tuple(evaluated),
                    phrase_types=tuple(types),
                    original_id=i // 2,
                    sentence_id=i % 2,
                )
            )
        return entries

    def predictions(self, entries: list[Entry], seed: int) -> dict:
        """Up to twelve boxes a sentence, some twice, some sentences without any; scores with many ties."""
        rng, found = np.random.default_rng(seed + 1000), {}
        for entry in entries:
            count = int(rng.integers(0, 13))
            corner = rng.integers(0, 4, (count, 2)) * 10.0
            boxes = np.concatenate([corner, corner + rng.integers(1, 4, (count, 2)) * 10], 1)
            scores = rng.integers(0, 4, (len(entry.evaluated), count)) / 4
            found[entry.original_id, entry.sentence_id] = (boxes, scores)
        return found

    def slow(self, entries: list[Entry], predictions: dict, merged: bool) -> dict[str, list[list[bool]]]:
        """Type (all for every one) -> for each phrase, whether it is found at 1, 5, 10 and at all; in plain loops."""
        found: dict[str, list[list[bool]]] = {"all": []}
        for entry in entries:
            boxes, scores = predictions[entry.original_id, entry.sentence_id]
            for place, spans in enumerate(entry.evaluated):
                own = [b for b, s in zip(entry.boxes, entry.spans, strict=True) if s == spans]
                own = [(x, y, x + w, y + h) for x, y, w, h in own]
                if merged:
                    own = [(*(min(b[i] for b in own) for i in (0, 1)), *(max(b[i] for b in own) for i in (2, 3)))]
                order = sorted(range(len(boxes)), key=lambda q, row=scores[place]: -row[q])
                hits = [any(iou(boxes[q], b) >= 0.5 for b in own) for q in order]
                row = [any(hits[:k]) for k in (1, 5, 10, len(hits))]
                for kind in ("all", *entry.phrase_types[place]):
                    found.setdefault(kind, []).append(row)
        return found

    @pytest.mark.parametrize("merged", [False, True])
    @pytest.mark.parametrize("seed", range(10))
    def test_recall_equals_plain_loops(self, seed: int, merged: bool) -> None:
        entries = self.sentences(seed)
        predicted = self.predictions(entries, seed)
        found = phrases.score(phrases.Truth.from_entries(entries, merged), predicted)
        for kind, rows in self.slow(entries, predicted, merged).items():
            part = found if kind == "all" else found["by_type"][kind]
            assert part["n"] == len(rows)
            rates = [part["recall@1"], part["recall@5"], part["recall@10"], part["upper_bound"]]
            assert rates == pytest.approx(np.mean(rows, 0).tolist())

    def test_nothing_is_found_where_nothing_is_predicted(self) -> None:
        entries = self.sentences(0)
        nothing = {(e.original_id, e.sentence_id): (np.zeros((0, 4)), np.zeros((len(e.evaluated), 0))) for e in entries}
        found = phrases.score(phrases.Truth.from_entries(entries), nothing)
        assert found["recall@10"] == found["upper_bound"] == 0

    def test_a_missing_sentence_or_phrase_is_an_error(self) -> None:
        entries = self.sentences(0)
        predicted = self.predictions(entries, 0)
        boxes, scores = predicted[0, 1]
        with pytest.raises(InputError, match="picture 0, sentence 1: scores of shape"):
            phrases.score(phrases.Truth.from_entries(entries), predicted | {(0, 1): (boxes, scores[:-1])})
        del predicted[0, 1]
        with pytest.raises(InputError, match="picture 0, sentence 1: has no prediction"):
            phrases.score(phrases.Truth.from_entries(entries), predicted)

    def test_a_sentence_that_is_asked_for_twice_is_an_error(self) -> None:
        entries = self.sentences(0)
        with pytest.raises(InputError, match="picture 0, sentence 0: occurs twice"):
            phrases.Truth.from_entries([*entries, entries[0]])


class TestQuestions:
    def test_type_and_answer_must_both_be_right(self) -> None:
        true_type, true_answer = np.array(["rel", "rel", "attr", "attr"]), np.array(["yes", "no", "red", "blue"])
        said_type, said_answer = np.array(["rel", "attr", "attr", "attr"]), np.array(["yes", "no", "red", "red"])
        found = vqa.score(said_type, said_answer, true_type, true_answer)
        assert (found["n"], found["accuracy"], found["type_accuracy"]) == (4, 0.5, 0.75)
        assert {kind: part["accuracy"] for kind, part in found["by_type"].items()} == {"rel": 0.5, "attr": 0.5}

    def test_a_type_that_is_absent_is_not_counted_as_right(self) -> None:
        one = np.array(["rel"])
        assert list(vqa.score(one, one, one, one)["by_type"]) == ["rel"]

    def test_every_question_needs_an_answer(self) -> None:
        with pytest.raises(InputError, match="are not one for each question"):
            vqa.score(*(np.array(["a"]),) * 3, np.array(["a", "b"]))

    def test_the_majority_baseline_gives_the_most_frequent_training_answer_of_the_type(self) -> None:
        kinds, answers = np.array(["rel", "rel", "rel", "attr"]), np.array(["no", "yes", "yes", "red"])
        assert vqa.majority(kinds, answers, np.array(["attr", "rel"])).tolist() == ["red", "yes"]


def precision_in_loops(
    truth: list[tuple[int, np.ndarray]], said: list[tuple[int, float, np.ndarray]], at: float
) -> float:
    """COCO's AP of one class at one IoU in plain loops: greedy matches from the best score down, 101 recalls."""
    said = sorted(said, key=lambda line: -line[1])
    taken: set[int] = set()
    right = []
    for image, _, box in said:
        best, best_iou = None, at
        for index, (where, true) in enumerate(truth):
            if where == image and index not in taken and iou(box, true) >= best_iou:
                best, best_iou = index, iou(box, true)
        right.append(best is not None)
        if best is not None:
            taken.add(best)
    hits = np.cumsum(right)
    precision = [max(hits[i:] / np.arange(i + 1, len(hits) + 1)) for i in range(len(hits))]
    recall = hits / len(truth)
    return float(
        np.mean(
            [
                next((p for p, r in zip(precision, recall, strict=True) if r >= level), 0.0)
                for level in np.linspace(0, 1, 101)
            ]
        )
    )


class TestDetection:
    def case(self, seed: int) -> tuple[dict, dict]:
        """Instances of one class on four images, and detections near them, beside them, and some twice."""
        rng = np.random.default_rng(seed)
        instances: dict = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "dog"}]}
        detections = {}
        for image in range(1, 5):
            instances["images"].append({"id": image, "height": 200, "width": 200, "file_name": f"{image}.jpg"})
            boxes = np.concatenate([rng.integers(0, 100, (3, 2)), rng.integers(20, 90, (3, 2))], 1).astype(float)
            for box in boxes:
                instances["annotations"].append(
                    {
                        "id": len(instances["annotations"]) + 1,
                        "image_id": image,
                        "category_id": 3,
                        "bbox": box.tolist(),
                        "area": float(box[2] * box[3]),
                        "iscrowd": 0,
                    }
                )
            near = boxes + rng.normal(0, 6, boxes.shape)
            said = np.concatenate([near, near[:1], np.array([[150.0, 150, 30, 30]])])
            detections[image] = (said, rng.permutation(len(said)) / 10 + image / 100, np.full(len(said), 3))
        return instances, detections

    @pytest.mark.parametrize("seed", range(5))
    def test_average_precision_equals_plain_loops(self, tmp_path: Path, seed: int) -> None:
        instances, detections = self.case(seed)
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(instances))
        found = average_precision.score(path, detections)

        def corners(box: np.ndarray) -> np.ndarray:
            return np.concatenate([box[:2], box[:2] + box[2:]])

        truth = [(a["image_id"], corners(np.array(a["bbox"]))) for a in instances["annotations"]]
        said = [
            (image, score, corners(box))
            for image, (boxes, scores, _) in detections.items()
            for box, score in zip(boxes, scores, strict=True)
        ]
        assert found["AP50"] == pytest.approx(precision_in_loops(truth, said, 0.5), abs=1e-6)
        assert found["AP75"] == pytest.approx(precision_in_loops(truth, said, 0.75), abs=1e-6)

    def test_no_detection_at_all_scores_zero(self, tmp_path: Path) -> None:
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(self.case(0)[0]))
        empty = (np.zeros((0, 4)), np.zeros(0), np.zeros(0))
        assert average_precision.score(path, {})["AP"] == average_precision.score(path, {1: empty})["AP"] == 0

    def test_a_strange_image_or_category_is_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(self.case(0)[0]))
        one = (np.array([[1.0, 1, 5, 5]]), np.array([0.5]), np.array([4]))
        with pytest.raises(InputError, match="image 1: category 4 is not in the instances"):
            average_precision.score(path, {1: one})
        with pytest.raises(InputError, match="image 9: is not in the instances"):
            average_precision.score(path, {9: one})
