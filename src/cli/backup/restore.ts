/** Restores a dump with PostgreSQL's own programs. */
import { spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { delimiter, join, resolve } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { CliError, EXIT } from '../failure.ts'
import type { PostgresAddress } from '../stores.ts'
import { type Format, plainDump } from './dump.ts'

/** Of what a program says as much as shows what is wrong. */
const TOLD_LINES = 3
const QUIETLY = ['--no-psqlrc', '--quiet']
const DEBIAN = '/usr/lib/postgresql'

/** `into` is empty. Rejects with a finding where the dump cannot be restored whole. */
export async function restore(
  path: string,
  format: Format,
  into: PostgresAddress,
  aborted: AbortSignal,
): Promise<void> {
  const { url, password } = withoutPassword(into.url)
  const at = ['--no-password', `--dbname=${url}`]
  const run = (program: string, args: readonly string[], input?: AsyncIterable<Buffer>) =>
    runProgram({ program, args: [...args, ...at], password, aborted }, path, input)
  if (format === 'plain') {
    return run('psql', [...QUIETLY, '--set=ON_ERROR_STOP=1'], plainDump(path))
  }
  // Of the schema alone, what is in it but not itself.
  await run('psql', [...QUIETLY, '--command=create schema sluice'])
  const without = ['--no-owner', '--no-privileges', '--no-tablespaces']
  await run('pg_restore', ['--exit-on-error', '--schema=sluice', ...without, resolve(path)])
}

interface Program {
  readonly program: string
  readonly args: readonly string[]
  readonly password: string | undefined
  readonly aborted: AbortSignal
}

async function runProgram(
  { program, args, password, aborted }: Program,
  path: string,
  input?: AsyncIterable<Buffer>,
): Promise<void> {
  const child = spawn(findProgram(program), args, {
    env: {
      ...process.env,
      ...(password !== undefined && { PGPASSWORD: password }),
      // What is restored here is dropped again: no commit has to wait for the disk.
      PGOPTIONS: `${process.env.PGOPTIONS ?? ''} -c synchronous_commit=off`,
    },
    stdio: [input === undefined ? 'ignore' : 'pipe', 'ignore', 'pipe'],
    signal: aborted,
  })
  const said = linesOf(child.stderr as Readable)
  const ended = new Promise<number | null>((tell, fail) => child.once('error', fail).once('close', tell))
  ended.catch(() => {})
  let broken: unknown
  if (input !== undefined && child.stdin !== null) {
    await pipeline(input, child.stdin).catch((error: NodeJS.ErrnoException) => {
      // A program that has ended is no longer read to; why it has, it says itself.
      if (error.code !== 'EPIPE' && error.code !== 'ERR_STREAM_PREMATURE_CLOSE') broken = error
      child.kill()
    })
  }
  const code = await ended
  if (broken !== undefined) throw broken
  if (code === 0) return
  const told = said.length === 0 ? `${program} ended with ${code}` : said.join(' ')
  throw new CliError(EXIT.finding, `${path} cannot be restored: ${told}`)
}

/** Those that come first, as they come. */
function linesOf(stream: Readable): string[] {
  const lines: string[] = []
  let rest = ''
  const take = (line: string): void => {
    if (line !== '' && lines.length < TOLD_LINES) lines.push(line.slice(0, 300))
  }
  stream.setEncoding('utf8').on('data', (chunk: string) => {
    const parts = `${rest}${chunk}`.split('\n')
    rest = (parts.pop() as string).slice(0, 1_000)
    for (const line of parts) take(line)
  })
  stream.on('end', () => take(rest))
  return lines
}

/** In `PATH`, or the newest of those that Debian keeps out of it. */
export function findProgram(name: string, path = process.env.PATH ?? '', debian = DEBIAN): string {
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : []
  const found = [
    ...path.split(delimiter).filter((folder) => folder !== ''),
    ...versions.map((version) => join(debian, version, 'bin')),
  ]
    .map((folder) => join(folder, name))
    .find((file) => existsSync(file))
  if (found !== undefined) return found
  throw new CliError(
    EXIT.unreachable,
    `PostgreSQL's ${name} is not installed here`,
    'Install its client programs, no older than the server that was dumped: apt-get install postgresql-client.',
  )
}

/** What a program is given stands in the list of processes; its environment does not. */
function withoutPassword(text: string): { readonly url: string; readonly password: string | undefined } {
  const url = new URL(text)
  const password = decodeURIComponent(url.password) || url.searchParams.get('password') || undefined
  url.password = ''
  if (url.searchParams.has('password')) url.searchParams.delete('password')
  return { url: url.href, password }
}
