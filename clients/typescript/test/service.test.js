// Every call against a real service: RESAD_URL names it, RESAD_PHOTO a photograph with findings.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import * as resad from "../dist/index.js";

const { RESAD_URL, RESAD_PHOTO = "" } = process.env;
const skip = RESAD_URL ? false : "RESAD_URL names no running service";
const client = new resad.Client(RESAD_URL);
const photo = skip ? new Uint8Array() : new Uint8Array(await readFile(RESAD_PHOTO));

test("score: bytes, buffers and blobs alike", { skip }, async () => {
  const options = { fpr: 0.2, evidence: 2 };
  const result = await client.score(photo, options);
  assert.equal(result.fpr, 0.2);
  assert.equal(result.intended_use, resad.INTENDED_USE);
  assert.ok(result.findings.length > 0);
  for (const finding of result.findings) assert.equal(finding.evidence.length, 2);
  for (const other of [new Blob([photo]), photo.slice().buffer]) {
    const again = await client.score(other, options);
    assert.deepEqual({ ...again, request_id: "", timings_ms: 0 }, { ...result, request_id: "", timings_ms: 0 });
  }
});

test("score and overlay: the rate of findings", { skip }, async () => {
  const [few, many] = [await client.score(photo, { false_regions: 0.25 }), await client.score(photo, { false_regions: 2 })];
  assert.deepEqual([few.normals.false_regions, many.normals.false_regions], [0.25, 2]);
  const [high, low] = [few.normals.finding_level, many.normals.finding_level];
  assert.ok(high !== null && low !== null && low < high);
  assert.ok(many.findings.length > few.findings.length);
  const { manifest } = await client.index(many.index.name);
  const stated = manifest?.calibration.finding_levels.find(({ rate }) => rate === 2);
  assert.equal(stated?.value, low);
  const [sparse, rich] = [await client.overlay(photo, { false_regions: 0.25 }), await client.overlay(photo, { false_regions: 2 })];
  assert.notDeepEqual(sparse.bytes, rich.bytes);
  const error = await client.score(photo, { false_regions: /** @type {any} */ (3) }).catch((reason) => reason);
  assert.ok(error instanceof resad.PhotoRefused);
  assert.match(error.detail, /false_regions: .*0\.25, 0\.5, 1, 2, 4, 8/);
});

test("scoreMany: in order, each with its own answer", { skip }, async () => {
  const damaged = photo.slice(0, 500);
  const [one, two, three] = await client.scoreMany([photo, damaged, photo]);
  assert.ok(two instanceof resad.PhotoRefused);
  assert.equal(two.type, "urn:resad:problem:photo-unreadable");
  assert.ok(one && three && !(one instanceof Error) && !(three instanceof Error));
  assert.ok(Math.abs(one.image_score - three.image_score) < 1e-4);
  assert.deepEqual(await client.scoreMany([]), []);
});

test("anomalyMap: the same map in every format", { skip }, async () => {
  const map = await client.anomalyMap(photo, { size: 96 });
  assert.equal(Math.max(map.width, map.height), 96);
  assert.equal(map.values.length, map.width * map.height);
  assert.ok(map.values.every((value) => value >= 0 && Number.isFinite(value)));
  const [png, tiff] = await Promise.all([
    client.anomalyMap(photo, { size: 96, format: "png" }), client.anomalyMap(photo, { size: 96, format: "tiff" }),
  ]);
  assert.deepEqual([...png.bytes.subarray(0, 4)], [0x89, 0x50, 0x4e, 0x47]);
  assert.deepEqual([png.mediaType, tiff.mediaType], ["image/png", "image/tiff"]);
  // Pillow writes the pixels of so small a TIFF in one piece.
  const raw = new Uint8Array(map.values.buffer);
  assert.ok(Buffer.from(tiff.bytes).includes(Buffer.from(raw)));
  const { index } = await client.score(photo);
  for (const file of [map, png, tiff]) {
    assert.equal(file.index, `${index.name}/${index.version}`);
    assert.ok(file.fullScale > 0);
  }
  assert.equal((await client.overlay(photo, { size: 96 })).mediaType, "image/png");
  assert.equal((await client.overlay(photo, { size: 96, kind: "jpeg" })).mediaType, "image/jpeg");
});

test("indexes, one of them, and health", { skip }, async () => {
  const [served] = await client.indexes();
  assert.ok(served);
  assert.equal(served.state, "serving");
  const detail = await client.index(served.name);
  assert.equal(detail.manifest?.version, served.version);
  assert.ok(detail.manifest && detail.manifest.calibration.patches.length > 0);
  assert.deepEqual(await client.live(), { ready: true, reason: null });
  assert.deepEqual(await client.ready(), { ready: true, reason: null });
  await assert.rejects(client.index("nowhere"), resad.NotFound);
});

test("what is refused says why", { skip }, async () => {
  await assert.rejects(client.score(new Uint8Array([1, 2, 3])), resad.PhotoUnusable);
  await assert.rejects(client.score(photo, { index: "other" }), resad.NotFound);
  const error = await client.score(photo, { fpr: 2 }).catch((reason) => reason);
  assert.ok(error instanceof resad.PhotoRefused);
  assert.match(error.detail, /fpr/);
  assert.ok(error.requestId);
});

test("evidence: a picture, or that there is none", { skip }, async () => {
  const { findings: [finding], index } = await client.score(photo, { fpr: 0.2 });
  const patch = finding?.evidence[0];
  assert.ok(patch);
  const crop = await client.evidenceCrop(index, patch).catch((reason) => reason);
  assert.ok(crop instanceof resad.NotFound || (crop instanceof Blob && crop.type === "image/jpeg"));
});

test("marks: made, listed, taken back", { skip }, async () => {
  const { findings: [finding] } = await client.score(photo);
  assert.ok(finding);
  const marked = await client.mark(photo, [{ label: "drusen", contour: finding.contour }], { reader: "Ada" });
  const [mark] = marked.marks;
  assert.ok(mark && mark.patches > 0);
  assert.match(marked.reader, /Ada/);
  const ids = async () => (await client.marks()).photos.flatMap(({ marks }) => marks.map(({ id }) => id));
  assert.ok((await ids()).includes(mark.id));
  await client.withdrawMark(mark.id);
  assert.ok(!(await ids()).includes(mark.id));
  await assert.rejects(client.withdrawMark(mark.id), resad.NotFound);
  const error = await client.mark(photo, [{ label: "No Label", contour: finding.contour }]).catch((reason) => reason);
  assert.ok(error instanceof resad.PhotoRefused);
  assert.match(error.detail, /label/);
});

test("a signal", { skip }, async () => {
  const ended = new AbortController();
  const asked = client.score(photo, { signal: ended.signal });
  ended.abort();
  await assert.rejects(asked, { name: "AbortError" });
});
