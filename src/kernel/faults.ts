import type { Millis } from '../units.ts'
import type { Key } from './cells.ts'

/**
 * What stops a step without a decision. Faults travel as thrown values inside a step and come out of it as data; the
 * engine turns them into errors with the same codes.
 */
export interface Fault {
  readonly code: FaultCode
  readonly message: string
  /** Where in the input, as a JSON pointer. */
  readonly path?: string
  readonly remedy?: string
  readonly retryAfterMs?: Millis
  /** The first answer, where the id is taken by another meaning. */
  readonly first?: unknown
}

export type FaultCode =
  | 'account_unknown'
  | 'plan_unknown'
  | 'feature_unknown'
  | 'request_unknown'
  | 'grant_unknown'
  | 'key_unknown'
  | 'not_found'
  | 'forbidden'
  | 'subject_missing'
  | 'price_missing'
  | 'estimate_missing'
  | 'policy_missing'
  | 'conflict'
  | 'step_out_of_order'
  | 'too_many'
  | 'amount_overflow'
  | 'too_old'
  | 'invalid'
  | 'precondition_failed'
  | 'clock_behind'
  | 'format_newer'

/** Thrown inside a step to end it with a fault. */
export class FaultSignal {
  readonly fault: Fault
  constructor(fault: Fault) {
    this.fault = fault
  }
}

/** Thrown inside a step that came upon keys it was not handed. */
export class NeedSignal {
  readonly keys: readonly Key[]
  constructor(keys: readonly Key[]) {
    this.keys = keys
  }
}

export function fail(
  code: FaultCode,
  message: string,
  detail: Omit<Fault, 'code' | 'message'> & { readonly remedy: string },
): never {
  throw new FaultSignal({ code, message, ...detail })
}

/** What a step answers: its result, or why there is none. */
export type Reply<T> = { readonly ok: T } | { readonly fault: Fault }
