import { DatabaseSync } from 'node:sqlite'
import { SluiceError } from '../../errors.ts'
import { unavailable } from './failure.ts'

const BUSY = 5

/**
 * Holds a file's side file locked for as long as this process lives, so that no second one writes it. The lock is
 * SQLite's own and ends with the process, however that ends. The data file itself stays open to readers, which
 * `locking_mode = exclusive` would shut out.
 */
export function lockFile(path: string): { release(): void } {
  const side = `${path}.lock`
  let db: DatabaseSync | undefined
  try {
    db = new DatabaseSync(side, { timeout: 0 })
    db.exec('begin exclusive')
  } catch (error) {
    db?.close()
    if ((((error as { errcode?: number }).errcode ?? 0) & 0xff) === BUSY) {
      throw new SluiceError('unavailable', `${path} is in use by another process`, {
        remedy: 'Stop the other process, or name another path.',
      })
    }
    throw unavailable(error, side)
  }
  return { release: () => db.close() }
}
