import type { Failure } from './failure.ts'
import type { Rows } from './rows.ts'

/** What became of one batch: undefined where it stands. */
export type Outcome = Failure | undefined

/**
 * Writes batches that waited for each other in one transaction, since it waits for the disk as long for many as for one. Where
 * what was joined is refused, each is tried alone. What comes after a batch that fails may build on it, and is passed over.
 *
 * @param write writes rows in one transaction, or throws
 * @param failureOf tells what an error of `write` means
 * @returns an outcome for each batch, in their order
 */
export function writeJoined(
  batches: readonly Rows[],
  write: (rows: Rows) => void,
  failureOf: (error: unknown) => Failure,
): Outcome[] {
  const attempt = (rows: Rows): Outcome => {
    try {
      write(rows)
      return undefined
    } catch (error) {
      return failureOf(error)
    }
  }
  // Not `flatMap`, which takes twenty times as long.
  const joined = batches.length === 1 ? (batches[0] as Rows) : ([] as Rows).concat(...batches)
  const failure = attempt(joined)
  if (failure?.outcome !== 'refused' || batches.length === 1) return batches.map(() => failure)
  let failed = false
  return batches.map((rows) => {
    if (failed) return PASSED_OVER
    const own = attempt(rows)
    failed = own !== undefined
    return own
  })
}

export const PASSED_OVER: Failure = {
  outcome: 'passed_over',
  message: 'A commit before this one failed',
  remedy: 'Retry with the same id.',
}
