/** What commands that stay have in common: their options, a policy published at start, and an end on signals. */
import { type Command, Option } from 'commander'
import { failureOf, usage } from './failure.ts'
import { remark } from './output.ts'
import { compiled, readPolicyFile } from './policy.ts'
import { whole } from './reading.ts'
import type { StoreAddress } from './stores.ts'
import { storeOption } from './target.ts'

const LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const
export type LogLevel = (typeof LEVELS)[number]

export const portOption = (flag: string, says: string, usual: number): Option =>
  new Option(`${flag} <number>`, says).default(usual).argParser(whole(0, 65_535))

/** Adds `--host`, `--port`, `--policy`, `--store` and `--log-level`. */
export function stands(command: Command, port: number, stores: string): Command {
  return command
    .option('--host <address>', 'where to listen', '127.0.0.1')
    .addOption(portOption('--port', '0 takes any that is free', port))
    .option('--policy <file>', 'publish this policy at start, where it differs from the one in force')
    .addOption(storeOption(stores))
    .addOption(
      new Option('--log-level <level>', 'how much to log, to standard output')
        .choices(LEVELS)
        .env('SLUICE_LOG_LEVEL'),
    )
}

/** Read and checked before the store is opened: a broken policy must not even touch the state. */
export async function policyTextOf(file: string | undefined): Promise<string | undefined> {
  if (file === undefined) return undefined
  const text = readPolicyFile(file)
  await compiled(file, text)
  return text
}

/** The same form that the door accepts in a header; a shorter one could be guessed. */
export function adminKeyOf(key: string | undefined): string | undefined {
  if (key === undefined || key === '') return undefined
  if (/^[\x21-\x7e]{16,512}$/.test(key)) return key
  throw usage('SLUICE_ADMIN_KEY is not a key', 'Give it 16 to 512 printable ASCII characters without space.')
}

/** The first signal ends it after all that was accepted is answered; a second one at once. */
export function endOnSignal(close: () => Promise<void>, atOnce: () => void = () => {}): void {
  let ending = false
  const end = (signal: NodeJS.Signals): void => {
    // By convention a process that a signal ends says so in its code.
    if (ending) process.exit(signal === 'SIGINT' ? 130 : 143)
    ending = true
    atOnce()
    // Then nothing is left that keeps the process: it ends by itself, when the log is written.
    close().catch((error: unknown) => {
      const { line, exit } = failureOf(error)
      remark(line)
      process.exitCode = exit
    })
  }
  process.on('SIGTERM', end)
  process.on('SIGINT', end)
}

/** How to make a key for a store that this process holds: nobody else may write a file. */
export const howToRun = (address: StoreAddress): string =>
  address.kind === 'postgres' ? 'run, with the same store' : 'stop it, and run'
