/** The only place where an address becomes a store. What a store needs is loaded only when its address is used. */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Store } from '../store.ts'
import type { Millis } from '../units.ts'
import { CliError, EXIT, usage } from './failure.ts'

export const DEFAULT_STORE = 'sqlite:sluice-data/sluice.db'
export const KNOWN_STORES = 'memory:, sqlite:PATH, postgres://HOST:PORT/DATABASE'

/** A clock of the caller's own: everything that a store measures time by. */
export interface OwnClock {
  readonly now: () => Millis
}

export type StoreAddress =
  | { readonly kind: 'memory' }
  | { readonly kind: 'sqlite'; readonly path: string; readonly folder: string }
  | PostgresAddress
/** The URL may hold a password: what is told is `nameOf`. */
export interface PostgresAddress {
  readonly kind: 'postgres'
  readonly url: string
}

/** Refuses what is no address of a store. Of an unknown one only the scheme is told: the rest may hold a password. */
export function parseStore(address: string): StoreAddress {
  const [, scheme = '', rest = ''] = /^([a-z][a-z0-9+]*):(.*)$/s.exec(address) ?? []
  if (scheme === 'memory' && (rest === '' || rest === '//')) return { kind: 'memory' }
  if (scheme === 'sqlite' && rest !== '') {
    const path = rest.replace(/^\/\/(?=.)/, '')
    return { kind: 'sqlite', path, folder: dirname(path) }
  }
  if (scheme === 'postgres' || scheme === 'postgresql') return { kind: 'postgres', url: checkedUrl(address) }
  const told = scheme === '' ? 'The store has no scheme' : `No store is known as ${scheme}:`
  throw usage(told, `Known are ${KNOWN_STORES}; for example ${DEFAULT_STORE}.`)
}

/**
 * A URL that names its database and is read the same way by everybody. A password with a bare `@`, `/`, `?` or `#` in it is cut
 * there: its rest would count as a part that is told. None of it is in the complaint.
 */
function checkedUrl(text: string): string {
  const [, behind = ''] = /^postgres(?:ql)?:\/\/[^/?#]*(.*)$/s.exec(text) ?? []
  const named = /^\/[^/?]/.test(behind) && URL.canParse(text)
  if (named && !/[@#]/.test(behind) && !/[\s,]/.test(text) && decodes(text)) return text
  throw usage(
    'The store is no URL of a PostgreSQL',
    'It takes postgres://USER:PASSWORD@HOST:PORT/DATABASE; in a password write % as %25, @ as %40, / as %2F, ? as %3F, # as %23, a comma as %2C and a space as %20.',
  )
}

function decodes(text: string): boolean {
  try {
    decodeURIComponent(text)
    return true
  } catch {
    return false
  }
}

/** Where state is, for people: never with a password. */
export function nameOf(address: StoreAddress): string {
  if (address.kind === 'memory') return 'memory'
  if (address.kind === 'sqlite') return address.path
  const { host, pathname } = new URL(address.url)
  return `postgres://${host}${pathname}`
}

export interface Opening {
  readonly clock?: OwnClock
  /** Whether a shared database is made and brought up to date, or refused where it is not. */
  readonly schema?: 'migrate' | 'require'
}

/** A store to write. It is not open yet: the engine does that. */
export async function storeToWrite(
  address: StoreAddress,
  { clock, schema = 'migrate' }: Opening = {},
): Promise<Store> {
  const clocks = clock === undefined ? {} : { now: clock.now, wall: clock.now, monotonic: clock.now }
  if (address.kind === 'memory') {
    const { memoryStore } = await import('../store/memory.ts')
    return memoryStore(clocks)
  }
  if (address.kind === 'postgres') {
    const { postgresStore } = await import('../store/postgres/store.ts')
    return postgresStore({ url: address.url, schema, ...clocks })
  }
  const { sqliteStore } = await import('../store/sqlite/store.ts')
  return sqliteStore({ path: address.path, ...clocks })
}

/** A store to look at while others may be serving it. Nothing is ever written to a file. */
export async function storeToRead(address: StoreAddress): Promise<Store> {
  if (address.kind !== 'sqlite') return storeToWrite(address, { schema: 'require' })
  const { sqliteReader } = await import('../store/sqlite/store.ts')
  return sqliteReader({ path: address.path })
}

/** A command that acts on what is there must not leave a new, empty file behind where the path was mistyped. */
export function mustExist(path: string): void {
  if (existsSync(path)) return
  throw new CliError(
    EXIT.unreachable,
    `There is no store at ${path}`,
    'Name it with --store, or a running server with --url and --key.',
  )
}

/** A file in the folder of a store: what belongs to it stays with it. */
export function besideStore(address: StoreAddress, name: string): string | undefined {
  return address.kind === 'sqlite' ? join(address.folder, name) : undefined
}

/** The same; what belongs to a database elsewhere stands in the usual folder, under that database's name. */
export function keptHere(address: StoreAddress, name: string): string | undefined {
  if (address.kind !== 'postgres') return besideStore(address, name)
  const { host, pathname } = new URL(address.url)
  const of = `${host}${pathname}`.replace(/[^A-Za-z0-9.-]+/g, '_')
  return join(dirname(DEFAULT_STORE.replace('sqlite:', '')), `${name}.${of}`)
}
