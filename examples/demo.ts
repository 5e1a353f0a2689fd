/**
 * What Sluice does with real traffic, in three commands: replay a sample of a real trace, audit the books, explain one
 * request that several sources paid and one that was refused. Everything is in a temporary folder, and gone afterwards.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const folder = mkdtempSync(join(tmpdir(), 'sluice-demo-'))
const store = ['--store', `sqlite:${join(folder, 'demo.db')}`]
const report = join(folder, 'report.json')

/** A request to look at, as the report of a replay names it. */
interface Pointer {
  readonly account: string
  readonly request: string
}
interface Report {
  readonly look_at: { readonly split: Pointer | null; readonly refused: Readonly<Record<string, Pointer>> }
}

try {
  title('Twenty-two minutes of requests to a code model, for sixty accounts on three plans')
  sluice(
    ...['replay', 'examples/data/azure-llm-code.csv.gz', '--policy', 'examples/codex-and-sora.yaml'],
    ...['--accounts', '60', '--plan', 'free:7,plus:2,pro:1', ...store, '--report', report],
  )
  title('The books, worked out again from their entries')
  sluice('audit', ...store)

  const { split, refused } = (JSON.parse(readFileSync(report, 'utf8')) as Report).look_at
  if (split !== null) {
    title('A request that an allowance and credits paid together')
    sluice('explain', split.account, split.request, ...store)
  }
  const [reason, pointer] = mostTelling(refused)
  if (pointer !== undefined) {
    title(`A request that was refused: ${reason}`)
    sluice('explain', pointer.account, pointer.request, ...store)
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}

/** Reasons about money say more than reasons about pace. */
function mostTelling(
  refused: Readonly<Record<string, Pointer>>,
): [reason: string, pointer: Pointer | undefined] {
  const order = ['allowance_spent', 'credits_short', 'overage_spent', 'budget_spent', ...Object.keys(refused)]
  const reason = order.find((one) => Object.hasOwn(refused, one)) ?? ''
  return [reason, refused[reason]]
}

function title(text: string): void {
  console.log(`\n${text}\n${'─'.repeat(text.length)}\n`)
}

/** Runs a command as one would type it. A command that fails ends the demonstration with its code. */
function sluice(...args: readonly string[]): void {
  console.log(`$ npx sluice ${args.join(' ').replaceAll(folder, '$TMP')}\n`)
  const { status } = spawnSync(process.execPath, ['src/cli/main.ts', ...args], {
    cwd: root,
    stdio: 'inherit',
  })
  if (status === 0) return
  rmSync(folder, { recursive: true, force: true })
  process.exit(status ?? 1)
}
