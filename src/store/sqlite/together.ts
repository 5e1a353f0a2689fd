import { CommitError } from '../coalesce.ts'
import type { Rows } from './rows.ts'

interface Waiting {
  readonly rows: Rows
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/**
 * Writes batches one after the other; those that come meanwhile are joined to one, since a transaction waits for the disk
 * as long for many as for one. Where what was joined is refused, each is tried alone.
 */
export function together(write: (rows: Rows) => Promise<void>): (rows: Rows) => Promise<void> {
  let waiting: Waiting[] = []
  let writing = false

  async function writeAll(): Promise<void> {
    writing = true
    while (waiting.length > 0) {
      const batches = waiting
      waiting = []
      await writeOnce(batches).catch((error: unknown) => afterFailure(batches, error))
    }
    writing = false
  }
  async function writeOnce(batches: readonly Waiting[]): Promise<void> {
    const [first] = batches
    await write(
      batches.length === 1 && first !== undefined ? first.rows : batches.flatMap(({ rows }) => rows),
    )
    for (const { resolve } of batches) resolve()
  }
  async function afterFailure(batches: readonly Waiting[], error: unknown): Promise<void> {
    const refused = error instanceof CommitError && error.outcome === 'refused'
    for (const { rows, resolve, reject } of batches) {
      if (refused && batches.length > 1) await write(rows).then(resolve, reject)
      else reject(error)
    }
  }

  return (rows) =>
    new Promise((resolve, reject) => {
      waiting.push({ rows, resolve, reject })
      if (!writing) writeAll()
    })
}
