// How a client waits and gives up, against servers of its own on a loopback port.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import * as resad from "../dist/index.js";

const JPEG = new Uint8Array([0xff, 0xd8, 0xff, 0xe0, 0, 0]);
const RESULT = { image_score: 1.5, findings: [], p_value: null };

/**
 * Runs `body` with a client of a server that gives these answers one after the other, the last one for ever.
 *
 * @param {[number, unknown, Record<string, string>?][]} answers
 * @param {(client: resad.Client, seen: import("node:http").IncomingMessage[], waits: number[]) => Promise<void>} body
 * @param {resad.ClientOptions} [options]
 */
async function against(answers, body, options = {}) {
  /** @type {import("node:http").IncomingMessage[]} */
  const seen = [];
  /** @type {number[]} */
  const waits = [];
  const server = createServer((request, response) => {
    request.resume();
    request.on("end", () => {
      const [status, value, headers] = answers[Math.min(seen.length, answers.length - 1)] ?? [500, null];
      seen.push(request);
      if (status === 0) return request.socket.destroy();
      response.writeHead(status, { "Content-Type": "application/json", ...headers });
      return response.end(JSON.stringify(value));
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(null)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  const onWait = (/** @type {resad.Wait} */ { seconds }) => void waits.push(seconds);
  try {
    await body(new resad.Client(`http://127.0.0.1:${port}/below/`, { random: () => 0, onWait, ...options }), seen, waits);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

/** @param {number} status */
const problem = (status) => ({ type: "urn:resad:problem:busy", title: "No", status, detail: "not now", request_id: "r-1" });

test("429 and 503 are waited out, never shorter than Retry-After asks", () =>
  against(
    [[429, problem(429), { "Retry-After": "1" }], [503, problem(503)], [200, RESULT]],
    async (client, seen, waits) => {
      const begun = Date.now();
      assert.equal((await client.score(JPEG)).image_score, 1.5);
      assert.equal(seen.length, 3);
      assert.deepEqual(waits, [1, 0.25]);
      assert.ok(Date.now() - begun >= 1240);
    },
  ));

test("a Retry-After beyond the cap is not waited for", () =>
  against(
    [[429, problem(429), { "Retry-After": "30" }]],
    async (client, seen, waits) => {
      const error = await client.score(JPEG).catch((reason) => reason);
      assert.ok(error instanceof resad.Busy);
      assert.deepEqual([error.retryAfter, error.status, error.detail, error.requestId], [30, 429, "not now", "r-1"]);
      assert.deepEqual([seen.length, waits], [1, []]);
    },
    { maxWaitS: 2 },
  ));

test("a date is read against the server's own clock", () =>
  against(
    [
      [503, problem(503), { Date: "Sun, 06 Nov 1994 08:49:37 GMT", "Retry-After": "Sun, 06 Nov 1994 08:49:38 GMT" }],
      [200, { indexes: [] }],
    ],
    async (client, _, waits) => {
      assert.deepEqual(await client.indexes(), []);
      assert.deepEqual(waits, [1]);
    },
  ));

test("repeats end, and what is not to be repeated is not", async () => {
  await against([[503, problem(503)]], async (client, seen) => {
    await assert.rejects(client.indexes(), resad.NotReady);
    assert.equal(seen.length, 3);
  }, { retries: 2, random: () => 0 });
  await against([[503, problem(503)]], async (client, seen) => {
    await assert.rejects(client.indexes(), resad.NotReady);
    assert.equal(seen.length, 1);
  }, { retryWhen: (error) => error instanceof resad.Busy });
});

test("a lost connection is tried again", () =>
  against([[0, null], [200, RESULT]], async (client, seen) => {
    await client.score(JPEG);
    assert.equal(seen.length, 2);
  }));

test("a proxy's word that the service is gone is a lost connection, the service's own fault is not", async () => {
  for (const status of [500, 502]) {
    await against([[status, "Internal Server Error"], [status, { error: "gone", type: 3 }], [200, RESULT]], async (client, seen) => {
      await client.score(JPEG);
      assert.equal(seen.length, 3);
    });
    await against([[status, "gone"]], async (client, seen) => {
      const error = await client.score(JPEG).catch((reason) => reason);
      assert.deepEqual([error.status, error.standsIn, seen.length], [status, true, 6]);
    }, { retries: 50, random: () => -0.99 }); // hardly any wait
    await against([[status, problem(status)]], async (client, seen) => {
      const error = await client.score(JPEG).catch((reason) => reason);
      assert.deepEqual([error.status, error.standsIn, seen.length], [status, false, 1]);
    });
  }
});

test("what changes something is asked again only where it was refused before it began", async () => {
  const marked = { content_sha256: "", marks: [] };
  /** @type {((client: resad.Client) => Promise<unknown>)[]} */
  const calls = [(client) => client.mark(JPEG, []), (client) => client.withdrawMark("m-1-1")];
  for (const call of calls) {
    for (const [status, value] of /** @type {const} */ ([[0, null], [502, "gone"], [504, problem(504)]])) {
      await against([[status, value], [200, marked]], async (client, seen) => {
        await assert.rejects(call(client), resad.ResadClientError);
        assert.equal(seen.length, 1);
      });
    }
  }
  await against([[429, problem(429)], [201, marked]], async (client, seen) => {
    assert.deepEqual(await client.mark(JPEG, [], { index: "a b", reader: "Ada" }), marked);
    assert.deepEqual(seen.map(({ method, url }) => [method, url]), Array(2).fill(["POST", "/below/v1/marks?index=a+b"]));
  }, { random: () => -0.99 });
  await against([[204, null]], async (client, seen) => {
    await client.withdrawMark("m/1", { index: "a" });
    assert.deepEqual([seen[0]?.method, seen[0]?.url], ["DELETE", "/below/v1/marks/m%2F1?index=a"]);
  });
  await against([[200, { labels: [], photos: [{}] }]], (client) => assert.rejects(client.marks(), resad.ProtocolError));
});

test("a service or a proxy that ran out of time is asked again, after longer waits", async () => {
  for (const body of ["<html>", problem(504)]) {
    /** @type {resad.Wait[]} */
    const waits = [];
    const options = { retries: Infinity, maxWaitS: Infinity, random: () => -0.99, onWait: (/** @type {resad.Wait} */ wait) => waits.push(wait) };
    await against([[504, body], [504, body], [504, body], [200, RESULT]], async (client, seen) => {
      const result = await client.score(JPEG);
      assert.deepEqual([result.image_score, seen.length], [RESULT.image_score, 4]);
    }, options);
    assert.ok(waits.every(({ error }) => error instanceof resad.DeadlinePassed));
    // 4, 8 and 16 s, of which this test's random part leaves half a hundredth.
    waits.forEach(({ seconds }, place) => assert.ok(Math.abs(seconds - 0.005 * 4 * 2 ** place) < 1e-9));
    await against([[504, body]], async (client, seen) => {
      const error = await client.score(JPEG).catch((reason) => reason);
      assert.deepEqual([error.constructor, error.standsIn, seen.length], [resad.DeadlinePassed, false, 13]);
    }, options);
    await against([[504, body], [200, RESULT]], async (client, seen) => {
      await assert.rejects(client.score(JPEG), resad.DeadlinePassed);
      assert.equal(seen.length, 1);
    }, { retryWhen: (error) => error instanceof resad.Busy });
  }
});

test("nobody there", async () => {
  await against([[200, RESULT]], async () => undefined);
  const client = new resad.Client("http://127.0.0.1:9", { retries: 1, random: () => 0 });
  await assert.rejects(client.indexes(), resad.ConnectionFailed);
});

test("a signal ends a wait, and a request, with its own reason", async () => {
  const wanted = new Error("enough");
  await against([[429, problem(429), { "Retry-After": "50" }]], async (client) => {
    const ended = new AbortController();
    setTimeout(() => ended.abort(wanted), 50);
    await assert.rejects(client.score(JPEG, { signal: ended.signal }), wanted);
    await assert.rejects(client.score(JPEG, { signal: ended.signal }), wanted);
  });
});

test("no answer in time", async () => {
  const server = createServer(() => undefined);
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(null)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  const client = new resad.Client(`http://127.0.0.1:${port}`, { timeoutS: 0.1 });
  await assert.rejects(client.indexes(), resad.TimedOut);
  server.closeAllConnections();
  server.close();
});

test("each status has its error, a proxy's page included", async () => {
  const kinds = /** @type {const} */ ([
    [400, resad.PhotoRefused], [401, resad.NotAllowed], [403, resad.NotAllowed], [404, resad.NotFound],
    [405, resad.ServerProblem], [413, resad.PhotoRefused], [415, resad.PhotoRefused], [422, resad.PhotoRefused],
    [500, resad.ServerFault], [504, resad.DeadlinePassed],
  ]);
  for (const [status, kind] of kinds) {
    await against([[status, "<html>"]], async (client, seen) => {
      const error = await client.score(JPEG).catch((reason) => reason);
      assert.equal(error.constructor, kind);
      assert.deepEqual([error.status, error.type, seen.length], [status, "about:blank", 1]);
    }, { retries: 0 });
  }
});

test("the key goes along, and never into a message", () =>
  against([[200, { indexes: [] }]], async (client, seen) => {
    client.setKey("a-key-of-the-ward");
    await client.indexes();
    client.setKey(null);
    await client.indexes();
    assert.deepEqual(seen.map(({ headers }) => headers.authorization), ["Bearer a-key-of-the-ward", undefined]);
    assert.throws(() => client.setKey("not a key"), (error) => {
      assert.ok(error instanceof resad.SettingError);
      return !error.message.includes("not a key");
    });
  }));

test("addresses: below the service's own path, with what was asked and nothing else", () =>
  against([[200, RESULT]], async (client, seen) => {
    await client.score(new Blob([JPEG]), { index: "a b", fpr: 0.1, eye: "left", evidence: undefined });
    assert.equal(seen[0]?.url, "/below/v1/score?index=a+b&fpr=0.1&eye=left");
    assert.equal(seen[0]?.headers["content-type"], "image/jpeg");
    const url = client.evidenceUrl({ name: "a/b", version: "v1" }, { photo: "r-1", y: 3, x: 4 });
    assert.ok(url.endsWith("/below/v1/indexes/a%2Fb/evidence/r-1/3/4?version=v1"));
  }));

test("settings that cannot be used", () => {
  for (const url of ["", "ftp://host", "//host"]) assert.throws(() => new resad.Client(url), resad.SettingError);
  assert.throws(() => new resad.Client(undefined, { retries: -1 }), resad.SettingError);
  assert.throws(() => new resad.Client(undefined, { maxWaitS: NaN }), resad.SettingError);
  assert.throws(() => new resad.Client(undefined, { timeoutS: 0 }), resad.SettingError);
});

test("answers that are none", async () => {
  for (const value of [null, [], { image_score: "1" }]) {
    await against([[200, value]], (client) => assert.rejects(client.score(JPEG), resad.ProtocolError));
  }
  await against([[200, { results: [RESULT] }]], async (client) => {
    await assert.rejects(client.scoreMany([JPEG, JPEG]), resad.ProtocolError);
  });
  assert.throws(() => resad.readNpy(new Uint8Array(20)), resad.ProtocolError);
});
