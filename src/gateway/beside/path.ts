/**
 * The path that a rule is held against. What stands behind a proxy reads a path in its own way, so `/a/../b`, `/%62` and `//b` all
 * have to be `/b` to the rules, or whoever asks could choose the cheapest reading.
 */

// What ends a segment for some readers and not for others, once decoded, and what no path has.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const AMBIGUOUS = /[/\\\u0000-\u001f\u007f]/

/** The path of a request target, decoded and without dots; undefined where readers may differ about what it is. */
export function pathOf(target: string): string | undefined {
  if (!target.startsWith('/') || target.length > 16_384) return undefined
  const [path = ''] = target.split(/[?#]/, 1)
  const segments: string[] = []
  const given = path.split('/').slice(1)
  for (const [place, written] of given.entries()) {
    const segment = decoded(written)
    if (segment === undefined || AMBIGUOUS.test(segment)) return undefined
    const isLast = place === given.length - 1
    if (segment === '..') segments.pop()
    else if (segment !== '.' && segment !== '') segments.push(segment)
    // A slash at the end is told apart; others are merged.
    if (isLast && (segment === '' || segment === '.' || segment === '..')) segments.push('')
  }
  return `/${segments.join('/')}`
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}
