/** What a command acts on: a running server over HTTP, or a store directly. Every command that needs state says it alike. */
import { existsSync, readFileSync } from 'node:fs'
import { type Command, Option } from 'commander'
import type { Engine } from '../engine.ts'
import { SluiceError } from '../errors.ts'
import type { Store } from '../store.ts'
import { CliError, EXIT, usage } from './failure.ts'
import { checkServer, type Desk, deskOverHttp } from './http.ts'
import {
  besideStore,
  DEFAULT_STORE,
  mustExist,
  nameOf,
  type Opening,
  parseStore,
  type StoreAddress,
  storeToRead,
  storeToWrite,
} from './stores.ts'

export const storeOption = (known = 'sqlite:PATH or postgres://…'): Option =>
  new Option('--store <address>', `${known} (default: ${DEFAULT_STORE})`).env('SLUICE_STORE')
export const jsonOption = (): Option => new Option('--json', 'answer in JSON, for programs')

/** Adds `--url`, `--key`, `--store` and `--json`. */
export function actsOnState(command: Command): Command {
  return serverOptions(command).addOption(storeOption()).addOption(jsonOption())
}

/** Adds `--url`, `--key` and `--json`, for what only a running server can do. */
export const actsOnServer = (command: Command): Command => serverOptions(command).addOption(jsonOption())

function serverOptions(command: Command): Command {
  return command
    .addOption(new Option('--url <address>', 'talk to a running server').env('SLUICE_URL'))
    .addOption(
      new Option('--key <secret>', 'its key; better in the environment, which process lists do not show').env(
        'SLUICE_KEY',
      ),
    )
}

/** The store that a command names, or the default one. */
export const storeOf = (command: Command): string => command.opts<{ store?: string }>().store ?? DEFAULT_STORE

/**
 * Reading opens a store beside a server that is serving it; writing needs an SQLite file for itself, and does not mind who else
 * uses a PostgreSQL. Only what comes before the first start may create a store, or the schema in a database: elsewhere a
 * mistyped name would leave an empty one behind. A copy is the caller's own: its schema is brought up to date, and else it
 * stays as it is.
 */
export type Access = 'read' | 'write' | 'create' | 'copy'

/** Runs `work` on what the options name: a flag before the environment, a server before a store. */
export async function withDesk<T>(
  command: Command,
  access: Access,
  work: (desk: Desk) => Promise<T>,
): Promise<T> {
  const { url, key } = command.opts<{ url?: string; key?: string }>()
  const said = (name: string): boolean => command.getOptionValueSource(name) === 'cli'
  if (said('url') && said('store')) throw usage('--url and --store were both given', 'Give one of them.')
  if (url !== undefined && !said('store')) return work(deskOverHttp(checkServer(url, key)))
  return withEngine(parseStore(storeOf(command)), access, work)
}

/** Opens a store with an engine over it, for as long as `work` runs. */
export async function withEngine<T>(
  address: StoreAddress,
  access: Access,
  work: (engine: Engine) => Promise<T>,
): Promise<T> {
  if (address.kind === 'memory') {
    throw usage(
      'A memory store ends with its process: there is nothing to act on',
      'Name another, or a running server with --url and --key.',
    )
  }
  if (address.kind === 'sqlite' && access !== 'create') mustExist(address.path)
  const engine = await engineFor(address, access)
  try {
    return await work(engine)
  } finally {
    await engine.close()
  }
}

function engineFor(address: StoreAddress, access: Access): Promise<Engine> {
  const isCopy = access === 'copy' && address.kind === 'postgres'
  if (isCopy) return engineOver(address, storeToWrite(address), false)
  if (access === 'read' || access === 'copy') return engineOver(address, storeToRead(address), false)
  return engineToWrite(address, { schema: access === 'create' ? 'migrate' : 'require' })
}

export const engineToWrite = (address: StoreAddress, opening: Opening = {}): Promise<Engine> =>
  engineOver(address, storeToWrite(address, opening), true)

async function engineOver(address: StoreAddress, made: Promise<Store>, sweeps: boolean): Promise<Engine> {
  const [store, { createEngine }] = await Promise.all([made, import('../engine.ts')])
  try {
    return await createEngine({ store, sweeps })
  } catch (error) {
    // A connection that is left open would keep the process.
    await store.close().catch(() => {})
    throw address.kind === 'postgres' ? unreachable(error, address) : pointToServer(error, address)
  }
}

/** Where a server leaves its address, beside the store that it holds. */
export const serverFile = (address: StoreAddress): string | undefined => besideStore(address, 'server.url')

/** A store that a server holds is no dead end: the server does the same over HTTP. */
function pointToServer(error: unknown, address: StoreAddress): unknown {
  if (!(error instanceof SluiceError) || !error.message.includes('in use by another process')) return error
  const file = serverFile(address)
  const url = file !== undefined && existsSync(file) ? readFileSync(file, 'utf8').trim() : 'http://HOST:PORT'
  return new CliError(
    EXIT.unreachable,
    error.message,
    `Where that is a server, ask it: --url ${url} --key KEY.`,
  )
}

/** What PostgreSQL itself answered says what to do; a connection that never was has no request to send again. */
export function unreachable(error: unknown, address: StoreAddress): unknown {
  const { cause } = error instanceof SluiceError ? error.detail : {}
  if (!(cause instanceof Error) || /^[0-9A-Z]{5}$/.test(String((cause as { code?: unknown }).code)))
    return error
  const [first = cause] = cause instanceof AggregateError ? (cause.errors as Error[]) : []
  return new CliError(
    EXIT.unreachable,
    `${nameOf(address)} cannot be reached: ${first.message}`,
    'Check host, port and database of --store, and that PostgreSQL runs.',
  )
}
