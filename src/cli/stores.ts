/** The only place where an address becomes a store. What a store needs is loaded only when its address is used. */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Store } from '../store.ts'
import type { Millis } from '../units.ts'
import { CliError, EXIT, usage } from './failure.ts'

export const DEFAULT_STORE = 'sqlite:sluice-data/sluice.db'
export const KNOWN_STORES = 'memory:, sqlite:PATH'

/** A clock of the caller's own: everything that a store measures time by. */
export interface OwnClock {
  readonly now: () => Millis
}

export type StoreAddress =
  | { readonly kind: 'memory' }
  | { readonly kind: 'sqlite'; readonly path: string; readonly folder: string }

/** Refuses what is no address of a store. Of an unknown one only the scheme is told: the rest may hold a password. */
export function parseStore(address: string): StoreAddress {
  const [, scheme = '', rest = ''] = /^([a-z][a-z0-9+]*):(.*)$/s.exec(address) ?? []
  if (scheme === 'memory' && (rest === '' || rest === '//')) return { kind: 'memory' }
  if (scheme === 'sqlite' && rest !== '') {
    const path = rest.replace(/^\/\/(?=.)/, '')
    return { kind: 'sqlite', path, folder: dirname(path) }
  }
  const told = scheme === '' ? 'The store has no scheme' : `No store is known as ${scheme}:`
  throw usage(told, `Known are ${KNOWN_STORES}; for example ${DEFAULT_STORE}.`)
}

/** A store to write. It is not open yet: the engine does that. */
export async function storeToWrite(address: StoreAddress, clock?: OwnClock): Promise<Store> {
  const clocks = clock === undefined ? {} : { now: clock.now, wall: clock.now, monotonic: clock.now }
  if (address.kind === 'memory') {
    const { memoryStore } = await import('../store/memory.ts')
    return memoryStore(clocks)
  }
  const { sqliteStore } = await import('../store/sqlite/store.ts')
  return sqliteStore({ path: address.path, ...clocks })
}

/** A file to look at while another process may be serving it. Nothing is ever written. */
export async function storeToRead(path: string): Promise<Store> {
  const { sqliteReader } = await import('../store/sqlite/store.ts')
  return sqliteReader({ path })
}

/** A command that acts on what is there must not leave a new, empty store behind where the path was mistyped. */
export function mustExist(path: string): void {
  if (existsSync(path)) return
  throw new CliError(
    EXIT.unreachable,
    `There is no store at ${path}`,
    'Name it with --store sqlite:PATH, or a running server with --url and --key.',
  )
}

/** A file in the folder of a store: what belongs to it stays with it. */
export function besideStore(address: StoreAddress, name: string): string | undefined {
  return address.kind === 'sqlite' ? join(address.folder, name) : undefined
}
