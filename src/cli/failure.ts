/** How a command ends: one line that says what happened and what to do, and an exit code that a script can read. */
import type { CommanderError } from 'commander'
import { ERRORS, type ErrorCode, SluiceError } from '../errors.ts'

/** Every exit code of every command. The reference page has the same list, held to this one by a test. */
export const EXIT = {
  /** Done. */
  ok: 0,
  /** Answered, and the answer is a finding: a disagreement, an invalid policy, a call that was refused. */
  finding: 1,
  /** The command line is not one: an unknown option, a missing argument, a value that cannot be read. */
  usage: 2,
  /** Nothing was decided: the server or the store cannot be reached, is locked, is not trusted, or failed. */
  unreachable: 3,
} as const
export type Exit = (typeof EXIT)[keyof typeof EXIT]

/** A refusal of the command line's own. `message` and `remedy` are sentences. */
export class CliError extends Error {
  override readonly name = 'CliError'
  readonly exit: Exit
  readonly remedy: string | undefined

  constructor(exit: Exit, message: string, remedy?: string) {
    super(message)
    this.exit = exit
    this.remedy = remedy
  }
}

export function usage(message: string, remedy: string): CliError {
  return new CliError(EXIT.usage, message, remedy)
}

/** These say that Sluice could not decide; all others, that it looked and said no. */
const UNREACHABLE: readonly ErrorCode[] = (Object.keys(ERRORS) as ErrorCode[]).filter(
  (code) => ERRORS[code].status >= 500,
)

/** Anything thrown, as one line and an exit code. The stack of a defect is told only where `SLUICE_DEBUG` is set. */
export function failureOf(error: unknown): { readonly line: string; readonly exit: Exit } {
  if (error instanceof CliError) return { line: inOneLine(error.message, error.remedy), exit: error.exit }
  if (error instanceof SluiceError) {
    const { path, remedy } = error.detail
    const named = path === undefined || path === '' || error.message.includes(path)
    const message = named ? error.message : `${path}: ${error.message}`
    const exit = UNREACHABLE.includes(error.code) ? EXIT.unreachable : EXIT.finding
    return { line: inOneLine(message, remedy), exit }
  }
  if (isCommanderError(error)) return { line: commanderLine(error), exit: EXIT.usage }
  const failed = error as NodeJS.ErrnoException
  if (typeof failed.code === 'string' && typeof failed.syscall === 'string') {
    return { line: inOneLine(systemWords(failed)), exit: EXIT.unreachable }
  }
  const message = error instanceof Error ? error.message : String(error)
  return {
    line: inOneLine(`This is a defect of Sluice: ${message}`, 'Set SLUICE_DEBUG=1 to see where.'),
    exit: EXIT.unreachable,
  }
}

export const isCommanderError = (error: unknown): error is CommanderError =>
  error instanceof Error &&
  'exitCode' in error &&
  'code' in error &&
  String(error.code).startsWith('commander.')

/** Commander puts its suggestion on a line of its own, and says `error: ` first. */
function commanderLine({ message }: CommanderError): string {
  const [first = '', ...more] = message.replace(/^error: /, '').split('\n')
  const suggestion = more.join(' ').replace(/[()]/g, '').trim()
  return inOneLine(capital(first), suggestion || 'Add --help to see what is taken.')
}

const SYSTEM_REMEDIES: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  EACCES: 'this user may not open it',
  EISDIR: 'it is a folder',
  ENOSPC: 'the disk is full',
  EADDRINUSE: 'another process listens there: choose another with --port',
  EADDRNOTAVAIL: 'this machine has no such address: choose another with --host',
}
function systemWords(error: NodeJS.ErrnoException): string {
  const { code = '', path, syscall } = error
  const address = error as { address?: string; port?: number }
  const where =
    path ?? [address.address ?? syscall, address.port].filter((one) => one !== undefined).join(':')
  return `${where}: ${SYSTEM_REMEDIES[code] ?? error.message}`
}

const sentence = (text: string): string => (/[.!?…]$/.test(text) ? text : `${text}.`)
const capital = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}`

function inOneLine(message: string, remedy?: string): string {
  const parts = remedy === undefined ? [message] : [message, capital(remedy)]
  return `sluice: ${parts.map(sentence).join(' ')}`.replace(/\s+/g, ' ')
}
