/** Work that is begun ahead, and answered in order. */

/**
 * Runs `work` on each item, `atOnce` of them at a time, and gives the answers in the order of the items. A slow one holds up the
 * answers behind it, and beyond `ahead` of those the work as well, so that what waits is bounded. After a failure nothing
 * new begins, and what runs is waited for.
 */
export async function* inOrder<Item, Answer>(
  items: AsyncIterable<Item>,
  { atOnce, ahead }: { readonly atOnce: number; readonly ahead: number },
  work: (item: Item) => Promise<Answer>,
): AsyncGenerator<Answer> {
  const answers: Promise<Answer>[] = []
  const turns: (() => void)[] = []
  let working = 0
  let failed = false
  async function inTurn(item: Item): Promise<Answer> {
    if (working >= atOnce) await new Promise<void>((resolve) => turns.push(resolve))
    else working += 1
    try {
      if (failed) throw new Error('the work before it failed')
      return await work(item)
    } catch (error) {
      failed = true
      throw error
    } finally {
      // Who waits takes this place over.
      const next = turns.shift()
      if (next === undefined) working -= 1
      else next()
    }
  }
  try {
    for await (const item of items) {
      const answer = inTurn(item)
      answer.catch(() => {})
      answers.push(answer)
      if (answers.length >= ahead) yield await (answers.shift() as Promise<Answer>)
    }
    for (let answer = answers.shift(); answer !== undefined; answer = answers.shift()) yield await answer
  } finally {
    failed = true
    await Promise.allSettled(answers)
  }
}
