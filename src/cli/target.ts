/** What a command acts on: a running server over HTTP, or a store directly. Every command that needs state says it alike. */
import { existsSync, readFileSync } from 'node:fs'
import { type Command, Option } from 'commander'
import type { Engine } from '../engine.ts'
import { SluiceError } from '../errors.ts'
import { CliError, EXIT, usage } from './failure.ts'
import { checkServer, type Desk, deskOverHttp } from './http.ts'
import {
  besideStore,
  DEFAULT_STORE,
  mustExist,
  type OwnClock,
  parseStore,
  type StoreAddress,
  storeToRead,
  storeToWrite,
} from './stores.ts'

export const storeOption = (known = 'sqlite:PATH'): Option =>
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
 * Reading opens a store beside a server that is serving it; writing needs it for itself. Only what comes before the first
 * start may create one: elsewhere a mistyped path would leave an empty store behind.
 */
export type Access = 'read' | 'write' | 'create'

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
      'Name sqlite:PATH, or a running server with --url and --key.',
    )
  }
  if (access !== 'create') mustExist(address.path)
  const engine = access === 'read' ? await engineToRead(address.path) : await engineToWrite(address)
  try {
    return await work(engine)
  } finally {
    await engine.close()
  }
}

export async function engineToWrite(address: StoreAddress, clock?: OwnClock): Promise<Engine> {
  const [store, { createEngine }] = await Promise.all([storeToWrite(address, clock), import('../engine.ts')])
  try {
    return await createEngine({ store })
  } catch (error) {
    throw pointToServer(error, address)
  }
}

async function engineToRead(path: string): Promise<Engine> {
  const [store, { createEngine }] = await Promise.all([storeToRead(path), import('../engine.ts')])
  return createEngine({ store, sweeps: false })
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
