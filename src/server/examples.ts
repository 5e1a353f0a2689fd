/** Examples of the contract: one for every call, one for every error. */
import type { ErrorCode } from '../errors.ts'
import { ERRORS, SluiceError } from '../errors.ts'
import type { Problem } from '../wire.ts'
import { problemOf } from './problem.ts'

export interface CallExample {
  readonly body?: unknown
  readonly answer?: unknown
}
export const CALL_EXAMPLES: Readonly<Record<string, CallExample>> = {}

export const ERROR_EXAMPLES = Object.fromEntries(
  Object.entries(ERRORS).map(([code, { says }]) => [
    code,
    problemOf(new SluiceError(code as ErrorCode, says)),
  ]),
) as Readonly<Record<ErrorCode, Problem>>
