/** Rate cards of every policy version, for working charges out again. */
import { type PolicyCell, SYSTEM } from '../../kernel/cells.ts'
import type { RateCard } from '../../ledger/price.ts'
import { compilePolicy } from '../../policy/compile.ts'
import type { Store } from '../../store.ts'

export interface Prices {
  readonly rateCard: (version: number, feature: string) => RateCard | undefined
  /**
   * Reads the versions that were published since. Called after entries were read and before they are looked at: each names
   * a version that was there when it was written.
   */
  catchUp(read?: (version: number) => Promise<PolicyCell | null>): Promise<void>
}

const PAGE = 100

/** Texts are kept, and versions compiled as charges name them. */
export async function readPrices(store: Store): Promise<Prices> {
  const texts = new Map<number, string>()
  const compiled = new Map<number, ReturnType<typeof compilePolicy>>()
  let newest = 0
  function take({ version, text }: PolicyCell): void {
    texts.set(version, text)
    newest = Math.max(newest, version)
  }
  for (let after: string | undefined; ; ) {
    const page = await store.cells(SYSTEM, 'policy:', {
      limit: PAGE,
      ...(after === undefined ? {} : { after }),
    })
    for (const { cell } of page) take(cell as PolicyCell)
    if (page.length < PAGE) break
    after = page.at(-1)?.key
  }
  const readOne = async (version: number): Promise<PolicyCell | null> => {
    const [first] = await store.cells(SYSTEM, `policy:${version}`, { limit: 1 })
    const cell = first?.cell as PolicyCell | undefined
    return cell?.version === version ? cell : null
  }
  return {
    rateCard(version, feature) {
      const text = texts.get(version)
      if (text === undefined) return undefined
      let policy = compiled.get(version)
      if (policy === undefined) {
        policy = compilePolicy(version, text)
        compiled.set(version, policy)
      }
      return policy.features.get(feature)?.card
    },
    async catchUp(read = readOne) {
      for (let cell = await read(newest + 1); cell !== null; cell = await read(newest + 1)) take(cell)
    },
  }
}
