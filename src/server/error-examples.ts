/** One example of every error, as the contract shows it; what callers see names their own input. */
import { ERRORS, type ErrorCode, SluiceError } from '../errors.ts'
import type { Problem } from '../wire.ts'
import { problemOf } from './problem.ts'
import { REMEDIES } from './remedies.ts'

export const ERROR_EXAMPLES = Object.fromEntries(
  Object.entries(REMEDIES).map(([code, [path, remedy, retryAfterMs]]) => {
    const { says } = ERRORS[code as ErrorCode]
    const detail = { path, remedy, ...(retryAfterMs !== undefined && { retryAfterMs }) }
    return [code, problemOf(new SluiceError(code as ErrorCode, says, detail))]
  }),
) as Readonly<Record<ErrorCode, Problem>>
