/** Packs a package of this checkout and installs it into an empty project, as somebody else would. */
import { execFile } from 'node:child_process'
import {
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
export const ROOT = join(import.meta.dirname, '..')
const TYPESCRIPT = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')
// npm and what it starts take the first `node` in PATH, which has to be the one that runs the test.
const env = { ...process.env, PATH: [dirname(process.execPath), process.env.PATH].join(delimiter) }

/** What the client's build reads. */
export const CLIENT_NEEDS: readonly string[] = [
  ...['tsconfig.json', 'tsconfig.client.json', 'package.json', 'LICENSE'],
  ...['client', 'src', 'toolchain'],
]

export interface Guest {
  /** The project that installed the package. */
  readonly folder: string
  write(name: string, text: string): void
  /** Runs a program in the project and answers what it printed; `program` is another Node.js, or this one. */
  node(args: readonly string[], program?: string): Promise<string>
  /** What the compiler says about a file of the project: nothing, where all is well. */
  check(file: string, options: object): Promise<string>
  remove(): void
}

/**
 * `from` is the package's folder in the checkout, `needs` are the files and folders that its build reads. Packing happens in
 * a copy, so that the checkout stays as it is; both folders stand outside of it, so that nothing of it is found by accident.
 */
export async function installPacked(from: string, needs: readonly string[]): Promise<Guest> {
  const temporary = realpathSync(mkdtempSync(join(tmpdir(), 'sluice-packed-')))
  const copy = join(temporary, 'copy')
  const folder = join(temporary, 'project')
  const npm = (cwd: string, ...args: readonly string[]) => run('npm', args, { cwd, env, timeout: 120_000 })
  mkdirSync(copy)
  for (const name of needs)
    if (existsSync(join(ROOT, name))) cpSync(join(ROOT, name), join(copy, name), { recursive: true })
  symlinkSync(join(ROOT, 'node_modules'), join(copy, 'node_modules'), 'junction')
  // `npm pack` builds first, through `prepack`.
  await npm(join(copy, from), 'pack', '--silent', '--pack-destination', temporary)
  const [tarball] = globSync('*.tgz', { cwd: temporary })
  if (tarball === undefined) throw new Error('npm packed nothing')
  mkdirSync(folder)
  writeFileSync(join(folder, 'package.json'), '{ "name": "guest", "private": true, "type": "module" }')
  await npm(folder, 'install', '--prefer-offline', '--no-audit', '--no-fund', join(temporary, tarball))
  const node = async (args: readonly string[], program = process.execPath): Promise<string> =>
    (await run(program, args, { cwd: folder, env, timeout: 60_000 })).stdout
  return {
    folder,
    write: (name, text) => writeFileSync(join(folder, name), text),
    node,
    async check(file, options) {
      const compilerOptions = { strict: true, noEmit: true, module: 'nodenext', ...options }
      writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: [file] }))
      return node([TYPESCRIPT, '-p', folder]).catch(({ stdout }) => stdout)
    },
    remove: () => rmSync(temporary, { recursive: true, force: true }),
  }
}
