/**
 * State in this process's memory, for tests, simulation and the browser. Commits go through the same coalescer as
 * everywhere, so that what is tried here is the path that a database takes. It imports nothing of Node.
 */
import { SluiceError } from '../errors.ts'
import type {
  AccountCell,
  Cell,
  GrantCell,
  Key,
  PolicyCell,
  RequestCell,
  SubjectCell,
} from '../kernel/cells.ts'
import type { PriorityClass } from '../kernel/plan.ts'
import type { EntryKind, StoredEntry } from '../ledger/entries.ts'
import type {
  AccountSnapshot,
  EntryQuery,
  JournalRow,
  KeyedCell,
  Moment,
  Page,
  RefusalLine,
  Step,
  Store,
  StoreHost,
  UsageChange,
  UsageKept,
  UsageKey,
  UsageRange,
  UsageState,
  UsageTotal,
} from '../store.ts'
import type { Millis } from '../units.ts'
import {
  type Backend,
  byEnd,
  type Change,
  createCoalescer,
  type Limits,
  type Reader,
  type Session,
  SYSTEM_ACCOUNT,
  withinMoment,
} from './coalesce.ts'

export interface MemoryOptions {
  /** The store's clock; the node's by default. */
  readonly now?: () => Millis
  /** What the store's clock is held against: the node's clocks, or the store's own where `now` is given. */
  readonly wall?: () => Millis
  readonly monotonic?: () => number
  readonly limits?: Limits
  /** Lines that the log of refusals keeps. */
  readonly maxRefusals?: number
  /** Freezes every cell and refuses numbers and values that JSON would not carry, so that tests find such defects. */
  readonly strict?: boolean
}

interface Account {
  readonly cells: Map<Key, Cell>
  readonly open: Map<string, RequestCell>
  readonly entries: StoredEntry[]
  readonly reader: Reader
}

/** Requests looked at by one call of `dropRequestsBefore`. */
const DROP_BOUND = 10_000

export function memoryStore(options: MemoryOptions = {}): Store {
  const clock = options.now ?? Date.now
  const state = createState()
  const usage = createUsage()
  const maxRefusals = options.maxRefusals ?? 10_000
  let refusalLines: RefusalLine[] = []
  let host: StoreHost | undefined

  const backend: Backend = {
    lanes: 1,
    overlapFrom: 1,
    begin: () => beginSession(state, clock()),
  }
  const coalescer = createCoalescer(backend, {
    limits: options.limits,
    clocks: { wall: options.wall ?? clock, monotonic: options.monotonic ?? (() => performance.now()) },
    host: () => host as StoreHost,
    inspect: options.strict === true ? freezeJson : undefined,
  })

  return {
    name: 'memory',
    cannot: {
      durable: 'State is kept in the memory of one process and ends with it.',
      many_nodes: 'State is kept in the memory of one process, where no other node sees it.',
      retain: RETAIN,
    },
    async open(given) {
      host = given
      coalescer.trusts(clock())
    },
    transact<T>(account: string, keys: readonly Key[], step: Step<T>, priority?: PriorityClass): Promise<T> {
      if (host === undefined) return Promise.reject(new SluiceError('unavailable', 'The store is not open'))
      return coalescer.transact(account, keys, step, priority)
    },
    now: async () => clock(),
    due: async (limit) => state.due(clock(), limit),
    accounts: async (page) => state.accounts(page),
    cells: async (account, prefix, page) => state.cells(account, prefix, page),
    async holds(account, limit) {
      return [...(state.find(account)?.open.values() ?? [])].sort(byEnd).slice(0, limit)
    },
    accountsOfRequest: async (requestId, limit) => state.accountsOfRequest(requestId, limit),
    entries: async (account, query) => selectEntries(state.find(account)?.entries ?? [], query),
    journal: async (after, limit, kinds) => state.journal(after, limit, kinds),
    usage: async (account, ranges) => usage.kept(account, ranges),
    keepUsage: async (account, revision, change) => usage.change(account, revision, change),
    snapshots: async (asked, limit) =>
      asked.map(({ account, afterSeq }) => snapshotOf(state.find(account), afterSeq, limit)),
    snapshot: (account, read) => read(momentOf(account, state.find(account), state.find(SYSTEM_ACCOUNT))),
    lastBefore: refuseToRetain,
    dropEntriesBefore: refuseToRetain,
    countHolds: async () => state.countHolds(),
    async logRefusals(lines) {
      refusalLines.push(...lines)
      if (refusalLines.length > maxRefusals * 2) refusalLines = refusalLines.slice(-maxRefusals)
    },
    async refusals(account, { requestId, limit }) {
      return refusalLines
        .slice(-maxRefusals)
        .filter(
          (line) => line.account === account && (requestId === undefined || line.requestId === requestId),
        )
        .reverse()
        .slice(0, limit)
    },
    async eraseRefusals(account, dimension, value) {
      refusalLines = refusalLines.filter(
        (line) => line.account !== account || line.subject[dimension] !== value,
      )
    },
    dropRequestsBefore: (instant) => coalescer.exclusive(async () => state.dropRequestsBefore(instant)),
    acceptClock: () => coalescer.acceptClock(clock()),
    health() {
      const ready = coalescer.trusts(clock())
      const detail = { operations_per_s: Math.round(coalescer.rate), accounts: state.size() }
      const health = { ready, queued: coalescer.queued, detail }
      return ready ? health : { ...health, problem: 'clock_suspect' }
    },
    close: () => coalescer.close(),
  }
}

const RETAIN = 'Entries in memory end with their process, and none is let go before.'
const refuseToRetain = async (): Promise<never> => {
  throw new SluiceError('invalid', RETAIN, { remedy: 'Use PostgreSQL, which lets go of whole months.' })
}

type State = ReturnType<typeof createState>

function beginSession(state: State, now: Millis): Session {
  let staged: Change[] = []
  return {
    now,
    reader: (account) => state.find(account)?.reader ?? readNothing,
    fetch: async () => {},
    stage(change) {
      state.checkEntries(change)
      staged.push(change)
      let bytes = 0
      for (const entry of change.entries) bytes += entry.body.length
      return bytes
    },
    commit() {
      for (const change of staged) state.apply(change)
      return undefined
    },
    abandon() {
      staged = []
    },
  }
}

const NO_HOLDS = Object.freeze({ requests: Object.freeze([]), complete: true })
const readNothing: Reader = (key) => (key.startsWith('due:') ? NO_HOLDS : null)

function createState() {
  const accounts = new Map<string, Account>()
  let names: string[] | undefined
  const dueAt = new Map<string, Millis>()
  const accountsByRequest = new Map<string, Set<string>>()
  const rows: { readonly account: string; readonly index: number }[] = []
  let requests: { readonly account: string; readonly key: Key }[] = []

  function create(name: string): Account {
    const cells = new Map<Key, Cell>()
    const open = new Map<string, RequestCell>()
    const entries: StoredEntry[] = []
    const reader: Reader = (key) => {
      if (key.startsWith('entry:')) return entries[Number(key.slice(6)) - 1] ?? null
      if (key.startsWith('due:')) return { requests: [...open.values()].sort(byEnd), complete: true }
      return cells.get(key) ?? null
    }
    const account = { cells, open, entries, reader }
    accounts.set(name, account)
    names = undefined
    return account
  }

  function applyWrite(name: string, account: Account, key: Key, cell: Cell | null): void {
    if (key.startsWith('request:')) applyRequest(name, account, key, cell as RequestCell | null)
    if (key === 'account') {
      const at = cell === null ? null : (cell as AccountCell).dueAt
      if (at === null) dueAt.delete(name)
      else dueAt.set(name, at)
    }
    if (cell === null) account.cells.delete(key)
    else account.cells.set(key, cell)
  }

  function applyRequest(name: string, account: Account, key: Key, cell: RequestCell | null): void {
    const id = key.slice('request:'.length)
    if (cell === null || cell.expiresAt === null) account.open.delete(id)
    else account.open.set(id, cell)
    const holders = accountsByRequest.get(id)
    if (cell === null) {
      holders?.delete(name)
      if (holders?.size === 0) accountsByRequest.delete(id)
    } else if (!account.cells.has(key)) {
      requests.push({ account: name, key })
      if (holders === undefined) accountsByRequest.set(id, new Set([name]))
      else holders.add(name)
    }
  }

  return {
    find: (name: string) => accounts.get(name),
    size: () => accounts.size,
    countHolds: () => [...accounts.values()].reduce((sum, { open }) => sum + open.size, 0),

    /** A store has no gaps in an account's numbers to offer: the database's unique index is this check here. */
    checkEntries(change: Change): void {
      let next = (accounts.get(change.account)?.entries.length ?? 0) + 1
      for (const entry of change.entries) {
        if (entry.seq !== next++)
          throw new SluiceError('internal', `Entry ${entry.seq} of ${change.account} is out of order`)
      }
    },

    apply(change: Change): void {
      const account = accounts.get(change.account) ?? create(change.account)
      for (const [key, cell] of change.writes) applyWrite(change.account, account, key, cell)
      for (const entry of change.entries) {
        rows.push({ account: change.account, index: account.entries.length })
        account.entries.push(entry)
      }
      for (const seq of change.erase ?? []) {
        const entry = account.entries[seq - 1]
        if (entry !== undefined) account.entries[seq - 1] = { ...entry, private: null }
      }
    },

    due(now: Millis, limit: number) {
      const found: { account: string; dueAt: Millis }[] = []
      for (const [account, at] of dueAt) if (at <= now) found.push({ account, dueAt: at })
      return found.sort((a, b) => a.dueAt - b.dueAt).slice(0, limit)
    },

    accounts({ after, limit }: Page): readonly AccountCell[] {
      names ??= [...accounts.keys()].filter((name) => name !== SYSTEM_ACCOUNT).sort()
      const found: AccountCell[] = []
      for (
        let i = after === undefined ? 0 : firstAfter(names, after);
        i < names.length && found.length < limit;
        i++
      ) {
        const cell = accounts.get(names[i] as string)?.cells.get('account')
        if (cell !== undefined) found.push(cell as AccountCell)
      }
      return found
    },

    cells: (name: string, prefix: string, page: Page) =>
      pageOfCells(accounts.get(name)?.cells ?? new Map(), prefix, page),

    accountsOfRequest: (id: string, limit: number) =>
      [...(accountsByRequest.get(id) ?? [])].sort().slice(0, limit),

    journal(after: string | undefined, limit: number, kinds?: readonly EntryKind[]): readonly JournalRow[] {
      const found: JournalRow[] = []
      for (let i = after === undefined ? 0 : Number(after); i < rows.length && found.length < limit; i++) {
        const { account, index } = rows[i] as (typeof rows)[number]
        const entry = accounts.get(account)?.entries[index] as StoredEntry
        if (kinds === undefined || kinds.includes(entry.kind))
          found.push({ account, position: String(i + 1), entry })
      }
      return found
    },

    /** Looks at the oldest requests first, and puts those that must stay at the end. */
    dropRequestsBefore(instant: Millis): void {
      const looked = requests.slice(0, DROP_BOUND)
      requests = requests.slice(looked.length)
      for (const { account: name, key } of looked) {
        const account = accounts.get(name)
        const cell = account?.cells.get(key) as RequestCell | undefined
        if (account === undefined || cell === undefined) continue
        if (cell.expiresAt === null && cell.createdAt < instant) applyWrite(name, account, key, null)
        else requests.push({ account: name, key })
      }
    },
  }
}

interface Usage extends UsageState {
  readonly revision: number
  readonly totals: Map<string, UsageTotal>
}

function createUsage() {
  const accounts = new Map<string, Usage>()
  const keyOf = ({ spanMs, startAt, group }: UsageKey): string => `${spanMs} ${startAt} ${group}`
  const stateOf = (account: string): Usage =>
    accounts.get(account) ?? {
      through: 0,
      revision: 0,
      earliestAt: null,
      latestAt: null,
      totals: new Map<string, UsageTotal>(),
    }
  return {
    kept(account: string, ranges: readonly UsageRange[]): UsageKept {
      const state = stateOf(account)
      const isAsked = ({ spanMs, startAt }: UsageTotal): boolean =>
        ranges.some((range) => range.spanMs === spanMs && startAt >= range.from && startAt < range.to)
      return { ...state, totals: [...state.totals.values()].filter(isAsked) }
    },
    change(account: string, revision: number, { totals, dropped, ...state }: UsageChange): boolean {
      const before = stateOf(account)
      if (before.revision !== revision) return false
      for (const key of dropped) before.totals.delete(keyOf(key))
      for (const total of totals) before.totals.set(keyOf(total), total)
      accounts.set(account, { ...state, revision: revision + 1, totals: before.totals })
      return true
    },
  }
}

const under = (cells: ReadonlyMap<Key, Cell>, prefix: string, limit: number): Cell[] => {
  const found: Cell[] = []
  for (const [key, cell] of cells) if (key.startsWith(prefix) && found.push(cell) === limit) break
  return found
}

function snapshotOf(account: Account | undefined, afterSeq: number, limit: number): AccountSnapshot {
  const cells: ReadonlyMap<Key, Cell> = account?.cells ?? new Map()
  const one = {
    account: (cells.get('account') as AccountCell | undefined) ?? null,
    subjects: under(cells, 'subject:', limit + 1) as SubjectCell[],
    grants: under(cells, 'grant:', limit + 1) as GrantCell[],
    requests: under(cells, 'request:', limit + 1) as RequestCell[],
    entries: selectEntries(account?.entries ?? [], { from: afterSeq + 1, limit: limit + 1 }),
  }
  const most = Math.max(one.subjects.length, one.grants.length, one.requests.length, one.entries.length)
  return { ...one, whole: most <= limit }
}

/** Copies the lists, not what stands in them: cells and entries are never changed. */
function momentOf(name: string, account: Account | undefined, system: Account | undefined): Moment {
  const within = withinMoment(name)
  const policies = new Map(system?.cells)
  const cells = new Map(account?.cells)
  const entries = [...(account?.entries ?? [])]
  const open = [...(account?.open.values() ?? [])]
  return {
    account: (cells.get('account') as AccountCell | undefined) ?? null,
    entries: (query) => within(() => selectEntries(entries, query)),
    subjects: (page) => within(() => pageOfCells(cells, 'subject:', page)),
    holds: (after, limit) =>
      within(() => {
        const from = after === undefined ? 0 : open.findIndex(({ id }) => id === after.id) + 1
        return open.slice(from, from + limit)
      }),
    policy: (version) => within(() => (policies.get(`policy:${version}`) as PolicyCell | undefined) ?? null),
  }
}

function pageOfCells(
  cells: ReadonlyMap<Key, Cell>,
  prefix: string,
  { after, limit }: Page,
): readonly KeyedCell[] {
  const keys = [...cells.keys()].filter((key) => key.startsWith(prefix)).sort()
  return keys
    .slice(after === undefined ? 0 : firstAfter(keys, after))
    .slice(0, limit)
    .map((key) => ({ key, cell: cells.get(key) as Cell }))
}

function selectEntries(entries: readonly StoredEntry[], query: EntryQuery): readonly StoredEntry[] {
  const from = Math.max(query.from ?? 1, 1)
  const to = Math.min(query.to ?? entries.length, entries.length)
  const found: StoredEntry[] = []
  const { kinds, newestFirst = false, limit } = query
  for (let i = 0; i <= to - from && found.length < limit; i++) {
    const entry = entries[(newestFirst ? to - i : from + i) - 1] as StoredEntry
    if (kinds === undefined || kinds.includes(entry.kind)) found.push(entry)
  }
  return found
}

/** Index of the first of these sorted texts that is greater. */
function firstAfter(sorted: readonly string[], text: string): number {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((sorted[middle] as string) <= text) low = middle + 1
    else high = middle
  }
  return low
}

/** Freezes a cell all through, and throws where it holds what JSON would lose. */
function freezeJson(path: string, value: unknown): void {
  if (typeof value === 'number' && !Number.isFinite(value)) throw new TypeError(`${path} is ${value}`)
  if (typeof value === 'object' && value !== null) {
    if (Object.isFrozen(value)) return
    Object.freeze(value)
    for (const [name, inner] of Object.entries(value)) freezeJson(`${path}/${name}`, inner)
  } else if (['function', 'symbol', 'bigint'].includes(typeof value)) {
    throw new TypeError(`${path} is a ${typeof value}, which JSON does not carry`)
  }
}
