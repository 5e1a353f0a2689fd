/** What is compared with what. */

import { freePort } from '../test/ports.ts'
import { type Conditions, contest, marks, type Outcome, perSecond, ratio, usual } from './contest.ts'
import type { Marks } from './contestant.ts'
import { type Figures, median } from './figures.ts'
import { gateway } from './gateway.ts'
import { postgres } from './postgres.ts'

export const SECTIONS: Readonly<Record<string, (conditions: Conditions) => Promise<Outcome>>> = {
  kernel: (conditions) =>
    alone(conditions, 'kernel', (turns) => ({ kernel_decisions_per_s: median(marks(turns, 'perSecond')) })),
  embedded,
  hot,
  http,
  client,
  gateway,
  rlf: (conditions) =>
    alone(conditions, 'rlf', (turns) => ({ rlf_memory_per_s: median(marks(turns, 'perSecond')) })),
  accounts,
  postgres,
}

async function alone(
  conditions: Conditions,
  name: string,
  figures: (turns: readonly Marks[]) => Figures,
): Promise<Outcome> {
  const { only } = await contest(conditions, async (stage) => ({ only: await stage.enter(name) }))
  return { figures: figures(only), ratios: {}, notes: [] }
}

function pairNotes(sluice: readonly Marks[], raw: readonly Marks[]): string[] {
  const show = (turns: readonly Marks[], name: string): string =>
    Math.round(median(marks(turns, name))).toLocaleString('en-US')
  const cost = (turns: readonly Marks[]): string =>
    `${show(turns, 'microsHere')} µs of CPU on the deciding thread, ${show(turns, 'microsElsewhere')} µs on others, ${show(turns, 'bytesPerPair')} bytes`
  return [
    `a pair of Sluice's: ${cost(sluice)}`,
    `a pair of raw's: ${cost(raw)}`,
    `operations a batch: ${show(sluice, 'operationsPerBatch')}; memory: ${show(sluice, 'rssMb')} MB`,
  ]
}

async function embedded(conditions: Conditions): Promise<Outcome> {
  const { sluice, raw, naive } = await contest(conditions, async (stage) => ({
    sluice: await stage.enter('embedded', { folder: stage.folder('sluice'), accounts: usual(conditions) }),
    raw: await stage.enter('raw', { folder: stage.folder('raw'), accounts: usual(conditions) }),
    naive: await stage.enter('embedded', {
      folder: stage.folder('naive'),
      accounts: usual(conditions),
      naive: true,
    }),
  }))
  return {
    figures: {
      embedded_pairs_per_s: perSecond(sluice),
      embedded_raw_pairs_per_s: perSecond(raw),
      embedded_naive_pairs_per_s: perSecond(naive),
      event_loop_delay_p99_ms: median(marks(sluice, 'delayP99Ms')),
      embedded_bytes_per_pair: median(marks(sluice, 'bytesPerPair')),
    },
    ratios: {
      'embedded_pairs_per_s/embedded_raw_pairs_per_s': ratio(sluice, raw),
      'embedded_pairs_per_s/embedded_naive_pairs_per_s': ratio(sluice, naive),
    },
    notes: pairNotes(sluice, raw),
  }
}

async function hot(conditions: Conditions): Promise<Outcome> {
  const { sluice, raw } = await contest(conditions, async (stage) => ({
    sluice: await stage.enter('embedded', { folder: stage.folder('sluice'), accounts: 1 }),
    raw: await stage.enter('raw', { folder: stage.folder('raw'), accounts: 1 }),
  }))
  return {
    figures: {
      embedded_hot_pairs_per_s: perSecond(sluice),
      embedded_hot_raw_pairs_per_s: perSecond(raw),
    },
    ratios: { 'embedded_hot_pairs_per_s/embedded_hot_raw_pairs_per_s': ratio(sluice, raw) },
    notes: pairNotes(sluice, raw),
  }
}

async function http(conditions: Conditions): Promise<Outcome> {
  const [many, one, none] = [await freePort(), await freePort(), await freePort()]
  const { single, warm, bare, batch } = await contest(conditions, async (stage) => {
    await stage.enter('served', { folder: stage.folder('many'), accounts: usual(conditions), port: many })
    await stage.enter('served', { folder: stage.folder('one'), accounts: 1, port: one })
    await stage.enter('bare', { port: none })
    return {
      single: await stage.enter('load', { port: many, accounts: usual(conditions) }),
      warm: await stage.enter('load', { port: one, accounts: 1 }),
      bare: await stage.enter('load', { port: none, accounts: usual(conditions) }),
      batch: await stage.enter('load', { port: many, accounts: usual(conditions), batch: 64 }),
    }
  })
  return {
    figures: {
      http_reserve_per_s: perSecond(single),
      http_hot_reserve_per_s: perSecond(warm),
      http_bare_per_s: perSecond(bare),
      http_batch_ops_per_s: perSecond(batch),
    },
    ratios: {
      'http_reserve_per_s/http_bare_per_s': ratio(single, bare),
      'http_hot_reserve_per_s/http_bare_per_s': ratio(warm, bare),
      'http_batch_ops_per_s/http_reserve_per_s': ratio(batch, single),
    },
    notes: [],
  }
}

async function client(conditions: Conditions): Promise<Outcome> {
  const port = await freePort()
  const accounts = usual(conditions)
  const { together, single } = await contest(conditions, async (stage) => {
    await stage.enter('served', { folder: stage.folder('served'), accounts, port })
    return {
      together: await stage.enter('client', { port, accounts }),
      single: await stage.enter('client', { port, accounts, togetherMs: 0 }),
    }
  })
  return {
    figures: { client_together_per_s: perSecond(together), client_single_per_s: perSecond(single) },
    ratios: { 'client_together_per_s/client_single_per_s': ratio(together, single) },
    notes: [],
  }
}

async function accounts(conditions: Conditions): Promise<Outcome> {
  const { manyAccounts } = conditions
  const { few, many } = await contest(conditions, async (stage) => {
    const places = { few: stage.folder('few'), many: stage.folder('many') }
    await stage.through('fill', { folder: places.few, accounts: usual(conditions) })
    await stage.through('fill', { folder: places.many, accounts: manyAccounts })
    return {
      few: await stage.enter('embedded', {
        folder: places.few,
        accounts: usual(conditions),
        existing: true,
      }),
      many: await stage.enter('embedded', { folder: places.many, accounts: manyAccounts, existing: true }),
    }
  })
  return {
    figures: { accounts_1m_ratio: ratio(many, few), accounts_1m_rss_mb: Math.max(...marks(many, 'rssMb')) },
    ratios: {},
    notes: [
      `pairs a second over ${manyAccounts} accounts: ${Math.round(perSecond(many))}, over ${usual(conditions)}: ${Math.round(perSecond(few))}`,
    ],
  }
}
