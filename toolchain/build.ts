// Makes what the package carries: JavaScript and declarations in dist/, and beside them the files that the sources
// read at run time, which the compiler leaves alone.
import { execFileSync } from 'node:child_process'
import { cpSync, globSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

const root = join(import.meta.dirname, '..')
const typescript = dirname(createRequire(import.meta.url).resolve('typescript/package.json'))

const compile = (config: string): void =>
  void execFileSync(process.execPath, [join(typescript, 'bin/tsc'), '-p', join(root, config)], {
    stdio: 'inherit',
  })

/** The client carries the types that it shares with the server: its folder in `dist/` is `client/`, theirs `src/`. */
function buildClient(): void {
  rmSync(join(root, 'client/dist'), { recursive: true, force: true })
  compile('tsconfig.client.json')
  cpSync(join(root, 'LICENSE'), join(root, 'client/LICENSE'))
}

/** The server takes along what it uses of the client: `dist/` has both folders. */
function buildServer(): void {
  rmSync(join(root, 'dist'), { recursive: true, force: true })
  compile('tsconfig.build.json')
  for (const file of globSync('**/*.{sql,yaml,proto}', { cwd: join(root, 'src') }))
    cpSync(join(root, 'src', file), join(root, 'dist/src', file))
}

if (process.argv[2] === 'client') buildClient()
else buildServer()
