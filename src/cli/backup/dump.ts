/** What a backup is, told by its content: its name may say anything. */
import { closeSync, createReadStream, existsSync, openSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { CliError, EXIT, usage } from '../failure.ts'

/** `archive` is what `pg_restore` reads: custom, directory and tar. */
export type Format = 'plain' | 'archive' | 'sqlite'

const COMPRESSED = ['1f8b', '28b52ffd', '04224d18']

/** Refuses what is no backup. */
export function formatOf(path: string): Format {
  if (statSync(path).isDirectory()) {
    if (existsSync(join(path, 'toc.dat'))) return 'archive'
    throw noBackup(path, 'it is a folder without the toc.dat of a dump')
  }
  const head = headOf(path)
  const begins = (text: string): boolean => head.subarray(0, text.length).toString('latin1') === text
  if (begins('SQLite format 3\0')) return 'sqlite'
  if (begins('PGDMP') || head.subarray(257, 262).toString('latin1') === 'ustar') return 'archive'
  if (COMPRESSED.some((magic) => head.toString('hex').startsWith(magic)))
    throw usage(`${path} is compressed`, 'Uncompress it first; pg_dump -Fc compresses by itself.')
  if (begins('--')) return 'plain'
  throw noBackup(path, head.length === 0 ? 'it is empty' : 'it begins like nothing that pg_dump writes')
}

function headOf(path: string): Buffer {
  const file = openSync(path, 'r')
  try {
    const head = Buffer.alloc(512)
    return head.subarray(0, readSync(file, head))
  } finally {
    closeSync(file)
  }
}

const noBackup = (path: string, why: string): CliError =>
  new CliError(
    EXIT.finding,
    `${path} is no backup: ${why}`,
    'It takes what pg_dump wrote, in any of its formats, or the copy of an SQLite file.',
  )

/** What `pg_restore` leaves out with --no-owner, --no-privileges and --no-tablespaces; pg_dump writes each in one line. */
const ROLES =
  /^(ALTER .+ OWNER TO .+|ALTER DEFAULT PRIVILEGES .+|(GRANT|REVOKE) .+|SET SESSION AUTHORIZATION .+|SET default_tablespace = [^'].*);$/
const END = '-- PostgreSQL database dump complete'

/**
 * The lines of a dump in plain SQL for `psql`, without those that name roles. Throws where it would go to another database than
 * the one it is restored into, and at the end of one that was cut off: psql takes the end of a file for the end of its table.
 */
export async function* plainDump(path: string): AsyncGenerator<Buffer> {
  let isData = false
  let isWhole = false
  let rest = ''
  const keeps = (line: string): boolean => {
    if (isData) {
      isData = line !== '\\.'
      return true
    }
    if (/^COPY .+ FROM stdin;$/.test(line)) isData = true
    else if (/^\\(?!(un)?restrict )/.test(line)) throw leadsElsewhere(path, line)
    else if (line === END) isWhole = true
    else return !ROLES.test(line)
    return true
  }
  // One byte, one character: what is in the lines is none of our business.
  for await (const chunk of createReadStream(path, { encoding: 'latin1', highWaterMark: 1 << 20 })) {
    const lines = `${rest}${chunk}`.split('\n')
    rest = lines.pop() as string
    const kept = lines.filter(keeps)
    if (kept.length > 0) yield Buffer.from(`${kept.join('\n')}\n`, 'latin1')
  }
  if (rest !== '' || !isWhole)
    throw new CliError(EXIT.finding, `${path} is cut off: it does not end as pg_dump ends what it writes`)
}

const leadsElsewhere = (path: string, line: string): CliError =>
  usage(
    `${path} goes to a database of its own choice (${line.slice(0, 40)})`,
    'Dump the one database, with pg_dump and without --create.',
  )
