/**
 * Sluice inside a service of one's own, without HTTP: a policy in TypeScript, one SQLite file, and a request whose cost is
 * split between an allowance and credits. Run it with `npx node examples/embedded.ts`, on the Node of this checkout;
 * installed, import from 'sluice'.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createEngine, definePolicy, sqliteStore } from '../src/index.ts'

const policy = definePolicy({
  features: {
    chat: { rate_card: [{ per_million: { input_tokens: 50, output_tokens: 400 } }] },
  },
  plans: {
    team: {
      guards: [{ name: 'in-flight', concurrency: 4, by: 'user' }],
      waterfall: [
        { allowance: 'included', by: 'user', windows: [{ name: '5h', limit: '1', per: '5h' }] },
        { credits: ['purchased'] },
      ],
    },
  },
})

const folder = mkdtempSync(join(tmpdir(), 'sluice-embedded-'))
const engine = await createEngine({ store: sqliteStore({ path: join(folder, 'sluice.db') }), policy })
try {
  await engine.createAccount({ id: 'acme', plan: 'team' })
  await engine.grant('acme', { id: 'order-1', kind: 'purchased', amount: '10' })

  const answer = await engine.reserve({
    request_id: 'chat-1',
    account: 'acme',
    subject: { user: 'ann' },
    feature: 'chat',
    estimate: { input_tokens: 12_000, output_tokens: 2_000 },
  })
  if (answer.outcome !== 'allow') throw new Error(`refused: ${answer.reason}`)
  console.log(
    `held ${answer.granted} CU: ${answer.from.map((share) => `${share.amount} from ${share.source}`).join(', ')}`,
  )

  // Here the model runs. What it really used is charged, and the rest of the hold goes back.
  const charge = await engine.settle({
    request_id: 'chat-1',
    account: 'acme',
    usage: { input_tokens: 12_000, output_tokens: 1_500 },
  })
  console.log(`charged ${charge.charged} CU, returned ${charge.returned}`)

  const { credits } = await engine.account('acme', { user: 'ann' })
  console.log(`credits left: ${credits.available}`)
  const { disagreements } = await engine.audit({})
  console.log(`the books disagree in ${disagreements} places`)
} finally {
  await engine.close()
  rmSync(folder, { recursive: true, force: true })
}
