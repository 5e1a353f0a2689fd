import { SluiceError } from '../../errors.ts'
import { CommitError } from '../coalesce.ts'
import type { Rows } from './rows.ts'

interface Waiting {
  readonly rows: Rows
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/**
 * Writes batches one after the other; those that come meanwhile, `most` of them, are joined to one, since a transaction waits
 * for the disk as long for many as for one. Where what was joined is refused, each is tried alone. What comes after a batch that fails
 * may build on it, and is passed over: in what was joined, and in all that waits until the failure is told.
 */
export function together(
  write: (rows: Rows) => Promise<void>,
  most = Number.POSITIVE_INFINITY,
): (rows: Rows) => Promise<void> {
  let waiting: Waiting[] = []
  let writing = false

  async function writeAll(): Promise<void> {
    writing = true
    while (waiting.length > 0) {
      const batches = waiting.splice(0, most)
      await writeOnce(batches).catch((error: unknown) => afterFailure(batches, error))
    }
    writing = false
  }
  async function writeOnce(batches: readonly Waiting[]): Promise<void> {
    // Not `flatMap`, which takes twenty times as long.
    await write(([] as Rows).concat(...batches.map(({ rows }) => rows)))
    for (const { resolve } of batches) resolve()
  }
  async function afterFailure(batches: readonly Waiting[], error: unknown): Promise<void> {
    const refused = error instanceof CommitError && error.outcome === 'refused'
    if (!refused || batches.length === 1) return tell(batches, error)
    for (const [place, batch] of batches.entries()) {
      const failure = await write(batch.rows).then(
        () => undefined,
        (cause: unknown) => ({ cause }),
      )
      if (failure === undefined) batch.resolve()
      else {
        tell([batch], failure.cause, batches.slice(place + 1))
        return
      }
    }
  }
  function tell(failed: readonly Waiting[], error: unknown, behind: readonly Waiting[] = []): void {
    const passedOver = [...behind, ...waiting]
    waiting = []
    for (const { reject } of failed) reject(error)
    for (const { reject } of passedOver) reject(new CommitError('passed_over', PASSED_OVER))
  }

  return (rows) =>
    new Promise((resolve, reject) => {
      waiting.push({ rows, resolve, reject })
      if (!writing) writeAll()
    })
}

const PASSED_OVER = new SluiceError('unavailable', 'A commit before this one failed', {
  remedy: 'Retry with the same id.',
})
