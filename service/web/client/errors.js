/**
 * Every error this package raises on purpose.
 *
 *     ResadClientError
 *     ├── SettingError        a value that cannot be used: an address, a key, an option
 *     ├── PhotoUnusable       never sent: of a type that is not supported
 *     ├── ConnectionFailed    no answer, or none in full
 *     │   └── TimedOut            none in time
 *     ├── ProtocolError       an answer, but not one of a ReSAD service as this package knows it
 *     └── ServerProblem       the service said what is wrong: status, type, title, detail, requestId
 *         ├── PhotoRefused        400, 413, 415, 422: the photograph, or another value of the call
 *         ├── NotAllowed          401, 403: the key
 *         ├── NotFound            404: the index, the mark, or the address
 *         ├── Busy                429: the queue was full
 *         ├── NotReady            503: starting, or shutting down
 *         ├── DeadlinePassed      504: the service gave up, or a proxy before it, every time it was asked
 *         └── ServerFault         any other 5xx
 *
 * Any other refusal (405, 406, 409, ...) is a plain `ServerProblem`.  No message holds a key.
 */
/** Base of all errors raised on purpose. */
export class ResadClientError extends Error {
    constructor(message, options) {
        super(message, options);
        this.name = new.target.name;
    }
}
/** A value that cannot be used, given to a client. */
export class SettingError extends ResadClientError {
}
/** A photograph that was not sent. */
export class PhotoUnusable extends ResadClientError {
}
/** No answer from the service. */
export class ConnectionFailed extends ResadClientError {
}
/** No answer within the client's timeout. */
export class TimedOut extends ConnectionFailed {
}
/** An answer that cannot be read. */
export class ProtocolError extends ResadClientError {
}
/** The service refused or failed, and said so. */
export class ServerProblem extends ResadClientError {
    /** As the service wrote it. */
    problem;
    /** The wait in seconds that the service asked for; null where it did not. */
    retryAfter;
    constructor(problem, retryAfter = null) {
        const detail = problem.detail ? `: ${problem.detail}` : "";
        const request = problem.request_id ? ` (request ${problem.request_id})` : "";
        super(`${problem.status} ${problem.title}${detail}${request}`);
        this.problem = problem;
        this.retryAfter = retryAfter;
    }
    /** HTTP's status. */
    get status() {
        return this.problem.status;
    }
    /** URN of the kind of problem; `about:blank` where the status says all. */
    get type() {
        return this.problem.type;
    }
    /**
     * Whether a proxy answered in the service's place, which is gone or cannot be reached: 500 or 502.
     * What the service says itself is a problem of its own kinds.  A proxy's 504 is none of these: it is
     * `DeadlinePassed`, whoever says it.
     */
    get standsIn() {
        return [500, 502].includes(this.status) && !this.type.startsWith("urn:resad:problem:");
    }
    /** The kind of problem, for people. */
    get title() {
        return this.problem.title;
    }
    /** This occurrence of it, for people; empty where nothing is said. */
    get detail() {
        return this.problem.detail;
    }
    /** By which the operator finds the request. */
    get requestId() {
        return this.problem.request_id;
    }
}
/** The photograph, or another value of the call, cannot be used. */
export class PhotoRefused extends ServerProblem {
}
/** The key is missing, unknown, or not enough. */
export class NotAllowed extends ServerProblem {
}
/** There is no such index or address. */
export class NotFound extends ServerProblem {
}
/** The service's queue was full, every time it was asked. */
export class Busy extends ServerProblem {
}
/** The service is starting or shutting down. */
export class NotReady extends ServerProblem {
}
/** The service did not finish within its own deadline, or a proxy's. */
export class DeadlinePassed extends ServerProblem {
}
/** A fault at the server. */
export class ServerFault extends ServerProblem {
}
const BY_STATUS = new Map([
    [400, PhotoRefused],
    [401, NotAllowed],
    [403, NotAllowed],
    [404, NotFound],
    [413, PhotoRefused],
    [415, PhotoRefused],
    [422, PhotoRefused],
    [429, Busy],
    [503, NotReady],
    [504, DeadlinePassed],
]);
/** `problem` as the error of its status. */
export function problemError(problem, retryAfter = null) {
    const kind = BY_STATUS.get(problem.status) ?? (problem.status >= 500 ? ServerFault : ServerProblem);
    return new kind(problem, retryAfter);
}
