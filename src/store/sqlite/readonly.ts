import { SluiceError } from '../../errors.ts'
import type { Store } from '../../store.ts'
import type { Millis } from '../../units.ts'
import { unavailable } from './failure.ts'
import { openReading, type Reading } from './reader.ts'

export const CANNOT = { many_nodes: 'A file of SQLite has one process that writes it.' }

type Reads = Pick<
  Store,
  'due' | 'accounts' | 'cells' | 'holds' | 'accountsOfRequest' | 'entries' | 'journal' | 'refusals'
>

/** The contract's readers over one connection. */
export function readsOf(reading: () => Reading, path: string, clock: () => Millis): Reads {
  const read = async <T>(work: (reading: Reading) => T): Promise<T> => {
    try {
      return work(reading())
    } catch (error) {
      throw unavailable(error, path)
    }
  }
  return {
    due: (limit) => read((from) => from.due(clock(), limit)),
    accounts: (page) => read((from) => from.accounts(page)),
    cells: (account, prefix, page) => read((from) => from.cells(account, prefix, page)),
    holds: (account, limit) => read((from) => from.openHolds(account, from.idOf(account), limit).requests),
    accountsOfRequest: (requestId, limit) => read((from) => from.accountsOfRequest(requestId, limit)),
    entries: (account, query) => read((from) => from.entries(account, query)),
    journal: (after, limit, kinds) => read((from) => from.journal(after, limit, kinds)),
    refusals: (account, { requestId, limit }) => read((from) => from.refusals(account, requestId, limit)),
  }
}

/** The same readers on a file that another process may be serving: no lock, no thread, nothing is ever written. */
export function sqliteReader(options: { readonly path: string; readonly now?: () => Millis }): Store {
  const { path, now: clock = Date.now } = options
  let opened: Reading | undefined
  const refuse = async (): Promise<never> => {
    throw new SluiceError('unavailable', `${path} was opened for reading only`)
  }
  const reading = (): Reading => {
    if (opened === undefined) throw new SluiceError('unavailable', 'The store is not open')
    return opened
  }
  return {
    name: 'sqlite',
    cannot: CANNOT,
    async open() {
      try {
        opened = openReading(path)
      } catch (error) {
        throw unavailable(error, path)
      }
    },
    transact: refuse,
    now: async () => clock(),
    ...readsOf(reading, path, clock),
    logRefusals: refuse,
    eraseRefusals: refuse,
    dropRequestsBefore: refuse,
    acceptClock: () => {},
    health: () => ({ ready: opened !== undefined, queued: 0, detail: { path } }),
    async close() {
      opened?.close()
      opened = undefined
    },
  }
}
