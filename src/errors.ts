/**
 * Everything Sluice answers when it could not decide. A denial is not here: it is a value.
 * One ordered list: the reference page and the HTTP status of each are held to it by a test.
 */
export const ERRORS = {
  invalid: { status: 400, says: 'The request is not valid.' },
  subject_missing: { status: 400, says: 'The plan counts by a dimension that the subject does not have.' },
  price_missing: { status: 400, says: 'No line of the rate card prices this request.' },
  estimate_missing: {
    status: 400,
    says: 'Neither an estimate nor a cost was given, and the feature has no default.',
  },
  too_old: { status: 400, says: 'The instant lies before the horizon within which ids are protected.' },
  amount_overflow: { status: 400, says: 'An amount left the range that can be counted exactly.' },
  unauthorized: { status: 401, says: 'The key is missing, unknown, expired or revoked.' },
  forbidden: { status: 403, says: 'The key may not do this.' },
  not_found: { status: 404, says: 'There is nothing at this address.' },
  account_unknown: { status: 404, says: 'There is no such account.' },
  plan_unknown: { status: 400, says: 'The policy has no such plan.' },
  feature_unknown: { status: 400, says: 'The policy has no such feature.' },
  request_unknown: { status: 404, says: 'There is no such request in this account.' },
  grant_unknown: { status: 404, says: 'There is no such grant in this account.' },
  key_unknown: { status: 404, says: 'There is no such key.' },
  conflict: { status: 409, says: 'The id is already in use with another meaning.' },
  step_out_of_order: { status: 409, says: 'Steps of an extend count 1, 2, 3…' },
  too_many: { status: 409, says: 'A bound on what one account can hold has been reached.' },
  precondition_failed: { status: 412, says: 'The entity tag is not the current one.' },
  precondition_required: { status: 428, says: 'If-Match is needed here.' },
  too_big: { status: 413, says: 'The body is too large.' },
  media_type: { status: 415, says: 'The body is not JSON.' },
  policy_missing: { status: 503, says: 'No policy has been published yet.' },
  policy_invalid: { status: 400, says: 'The policy is not valid.' },
  overloaded: { status: 503, says: 'Too much work is waiting.' },
  unavailable: { status: 503, says: 'The store cannot be reached or written.' },
  clock_suspect: { status: 503, says: 'The store’s clock has jumped and is not trusted.' },
  clock_behind: { status: 503, says: 'The store’s clock is behind what this account has already seen.' },
  format_newer: { status: 503, says: 'The state was written by a newer version of Sluice.' },
  closing: { status: 503, says: 'The node is shutting down.' },
  internal: { status: 500, says: 'Sluice failed; nothing was changed.' },
} as const satisfies Record<string, { status: number; says: string }>

export type ErrorCode = keyof typeof ERRORS

export interface ErrorDetail {
  /** Where in the input, as a JSON pointer: `/subject/user`. */
  readonly path?: string
  /** What to do about it, in one sentence. */
  readonly remedy?: string
  readonly retryAfterMs?: number
  /** The first answer, where a conflict has one; complaints, where a policy is not valid. */
  readonly first?: unknown
  readonly complaints?: readonly {
    readonly path: string
    readonly message: string
    readonly line?: number
    readonly column?: number
  }[]
  readonly cause?: unknown
}

/** An accident, with a code, where, and what to do. */
export class SluiceError extends Error {
  override readonly name = 'SluiceError'
  readonly code: ErrorCode
  readonly detail: ErrorDetail

  constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause })
    this.code = code
    this.detail = detail
  }

  get status(): number {
    return ERRORS[this.code].status
  }
}
