import { SluiceError } from '../../errors.ts'
import { SNAPSHOT_MS } from '../../store.ts'

/** Lets what reads one moment of an account go on for `SNAPSHOT_MS`, and no longer. */
export function withinMoment(account: string): <T>(read: () => T | Promise<T>) => Promise<T> {
  const until = performance.now() + SNAPSHOT_MS
  return async (read) => {
    if (performance.now() <= until) return read()
    throw new SluiceError(
      'unavailable',
      `${account} has more open requests and subjects than could be read within ${SNAPSHOT_MS / 1000} s`,
      {
        path: `/${account}`,
        remedy:
          'Audit it by its name when it is quieter, or nearer to the database; the other accounts can be audited without it.',
      },
    )
  }
}
