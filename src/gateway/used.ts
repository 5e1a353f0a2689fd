/** What a call needs before it runs, and what it has used so far, told to its lease as it grows. */

import type { AccessRequest } from '../../client/access.ts'
import type { Opened } from '../../client/open.ts'
import type { Quantities, QuantitiesIn } from '../wire.ts'
import type { GatewayConfig } from './config.ts'
import type { Asked } from './provider.ts'
import { countTokens, roughTokens, tokensIn } from './tokens.ts'

/** Text that is kept to be counted. */
const MAX_KEPT_CHARACTERS = 100_000

/** No answers are as long together; beyond it prices leave the range of amounts. */
const MOST_TOKENS = 1e8

/** What is held for it. Of an answer that grows less is welcome, down to what each of its parts needs to be of use. */
export function neededBy(
  asked: Asked,
  { usualOutputTokens, leastOutputTokens }: Pick<GatewayConfig, 'usualOutputTokens' | 'leastOutputTokens'>,
): Pick<AccessRequest, 'estimate' | 'min' | 'cost'> {
  if (asked.cost !== undefined) return { cost: asked.cost }
  const input = roughInput(asked)
  if (asked.grows === undefined) return { estimate: input }
  const choices = asked.choices ?? 1
  const most = Math.min(Number(asked.bound.output_tokens ?? usualOutputTokens * choices), MOST_TOKENS)
  const least = Math.min(most, Math.max(leastOutputTokens, choices))
  return { estimate: { ...input, output_tokens: most }, min: { ...input, output_tokens: least } }
}

/** What bounds the upstream: less than was asked for where less was granted, and otherwise the caller's own. */
export function boundOf(asked: Asked, { lease }: Opened): number | undefined {
  if (lease.outcome !== 'partial' || asked.grows === undefined) return undefined
  const granted = lease.granted_estimate?.[asked.grows]
  return granted === undefined ? undefined : Math.max(1, Math.floor(Number(granted)))
}

function roughInput(asked: Asked): QuantitiesIn {
  return {
    ...asked.certain,
    ...asked.guessed,
    ...(asked.input !== undefined && { input_tokens: roughTokens(asked.input) }),
  }
}

export interface Used {
  /** False where the work is to stop: all that is granted is used. */
  text(piece: string): boolean
  /** All that was used, as the upstream tells it. */
  usage(told: Quantities): boolean
  /** All but the output. */
  known(told: Quantities): void
  /** An answer of that many bytes of which nothing could be read. */
  unread(bytes: number): void
  /** Counts what nobody has told. */
  count(): Promise<void>
  /** No more of anything than was granted: for work that was ended because all of it is used. */
  cap(): void
}

export function usedBy(asked: Asked, { lease }: Opened): Used {
  const input = roughInput(asked)
  let bytes = 0
  let keptBytes = 0
  let kept = ''
  let known: Quantities | undefined
  let told: Quantities | undefined
  /** Whether text has come since. */
  let isOld = false
  /** What is told says all: what is not named in it was not used, however much of it was held. */
  const whole = (told: QuantitiesIn): QuantitiesIn => ({
    ...Object.fromEntries(Object.keys({ ...lease.granted_estimate, ...input }).map((name) => [name, '0'])),
    ...asked.certain,
    ...told,
  })
  let last: QuantitiesIn = {}
  const toldOutput = (): number => Number(told?.output_tokens ?? 0)
  /**
   * An upstream that tells of less than it has brought is not believed: what it said came before the text, or was nonsense.
   * How much a text is nobody knows exactly, so that after it any number above none is believed.
   */
  const isTold = (): boolean =>
    told !== undefined &&
    (asked.grows === undefined || bytes === 0 || toldOutput() >= (isOld ? tokensIn(bytes) : 1))
  const reportText = (): boolean =>
    lease.report(
      { ...input, ...told, output_tokens: Math.max(toldOutput(), tokensIn(bytes)) },
      { estimated: true },
    )
  return {
    text(piece) {
      if (piece === '' || asked.grows === undefined) return !lease.signal.aborted
      const size = Buffer.byteLength(piece)
      bytes += size
      isOld = true
      if (kept.length < MAX_KEPT_CHARACTERS) {
        kept += piece
        keptBytes += size
      }
      return isTold() ? !lease.signal.aborted : reportText()
    },
    usage(now) {
      told = now
      isOld = false
      return isTold() ? lease.report(whole(now)) : reportText()
    },
    known(now) {
      known = now
    },
    unread(size) {
      if (asked.grows !== undefined) bytes += size
    },
    async count() {
      if (isTold()) return
      if (asked.cost !== undefined) return void lease.reportCost(asked.cost)
      const counted = {
        ...asked.guessed,
        ...(told ?? known ?? (asked.input !== undefined && { input_tokens: await countTokens(asked.input) })),
        ...(asked.grows !== undefined && {
          [asked.grows]: Math.max(toldOutput(), (await countTokens(kept)) + tokensIn(bytes - keptBytes)),
        }),
      }
      last = whole(counted)
      lease.report(last, { estimated: Object.keys(counted).length > 0 })
    },
    cap() {
      const granted = lease.granted_estimate
      if (granted === undefined || isTold()) return
      const capped = Object.entries(last).map(([name, amount]) => [
        name,
        Number(amount) > Number(granted[name] ?? amount) ? granted[name] : amount,
      ])
      lease.report(Object.fromEntries(capped), { estimated: true })
    },
  }
}
