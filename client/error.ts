import type { Problem } from '../src/wire.ts'

/**
 * Sluice could not decide, could not be reached, or would not take what was sent. A denial is not here: it is a value.
 * `code` is one of the server's (docs/reference/errors.md), or `unavailable` where no answer came: then `status` is 0.
 */
export class SluiceError extends Error {
  override readonly name = 'SluiceError'
  readonly code: string
  readonly status: number
  /** Where in the input, as a JSON pointer. */
  readonly path: string | undefined
  /** What to do about it, in one sentence. */
  readonly remedy: string | undefined
  readonly retryAfterMs: number | undefined
  /** The first answer, where a conflict has one. */
  readonly first: unknown

  constructor(problem: Partial<Problem> & Pick<Problem, 'code' | 'status' | 'detail'>, cause?: unknown) {
    super(problem.detail, cause === undefined ? undefined : { cause })
    this.code = problem.code
    this.status = problem.status
    this.path = problem.path
    this.remedy = problem.remedy
    this.retryAfterMs = problem.retry_after_ms
    this.first = problem.first
  }
}

/** 503s that time alone does not mend: somebody has to publish a policy, or to upgrade a node. */
const STAYS = ['policy_missing', 'format_newer']
/** What Sluice never answers, but a proxy before it may: too slow, too early, too many. */
const PASSES = [408, 425, 429]

/** Whether nothing is known of what became of the call, or nothing has: it may be sent again, and it says that Sluice is away. */
export const isUnavailable = (error: unknown): error is SluiceError =>
  error instanceof SluiceError &&
  (error.status === 0 ||
    PASSES.includes(error.status) ||
    (error.status >= 500 && !STAYS.includes(error.code)))

export function unavailable(says: string, cause?: unknown, retryAfterMs?: number): SluiceError {
  return new SluiceError(
    {
      code: 'unavailable',
      status: 0,
      detail: says,
      remedy: 'Send the same call again, with the same ids.',
      ...(retryAfterMs !== undefined && { retry_after_ms: retryAfterMs }),
    },
    cause,
  )
}

/** What an answer that is no success says, whether or not it came from Sluice itself. */
export function problemFrom(status: number, body: unknown): SluiceError {
  const problem = (typeof body === 'object' && body !== null ? body : {}) as Partial<Problem>
  return new SluiceError({
    ...problem,
    status,
    code: typeof problem.code === 'string' ? problem.code : codeOf(status),
    detail: typeof problem.detail === 'string' ? problem.detail : `Sluice answered with status ${status}`,
  })
}

const codeOf = (status: number): string =>
  status >= 500 || PASSES.includes(status) ? 'unavailable' : 'invalid'

/** Errors of calls that never left: there is nothing to undo. */
const unsent = new WeakSet<SluiceError>()
export function neverSent(error: SluiceError): SluiceError {
  unsent.add(error)
  return error
}
export const wasNeverSent = (error: SluiceError): boolean => unsent.has(error)
