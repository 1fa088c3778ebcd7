"""Frequent words of five languages in Latin script, and the words that worked mathematics uses in each.

A word may stand in several lists (`so`, `in`, `plus`): then it says nothing about the language. Proper names, symbols
of units and words that name things (`Hund`) stay out: they turn up in a text of any language.
"""

from __future__ import annotations

from collections.abc import Mapping

_LISTS = {
    "en": """
        the a an of to and in is it you that he was for on are with as his they at be this have from or one had by but
        not what all were we when your can said there use each which she do how their if will up other about out many
        then them these so some her would make like him into time has look two more go see no way could people my than
        first been call who its now find long down day did get come made may part over new after also back only very
        just where most know through much before line right too mean old any same tell does three want well must such
        because turn here why ask read need different off again still should every found answer between never last let
        us both few while often until always those our under might though another since without being four five six
        seven eight nine ten eleven twelve twenty thirty hundred thousand zero second third once twice half even odd
        however therefore thus hence finally next start begin begins starts ends end keep yes correct incorrect wrong
        true false check verify verified wait hmm okay ok actually maybe perhaps sure hold mistake error again careful
        think thinking thought step steps problem question solve solved solution solutions result results final
        compute computes calculate calculation calculations add adds added adding addition subtract subtracts
        subtracted subtracting multiply multiplied multiplying multiplication divide divided dividing division times
        equals equal sum difference product quotient remainder number numbers digit digits value values total both
        sides side equation equations expression variable unknown term terms left remains remaining gives give given
        get gets got yields means implies suppose assume consider note notice simplify simplifies simplified
        substitute rewrite combine isolate factor factors power square squared root fraction fractions denominator
        numerator percent average least greatest less greater smaller larger bigger smallest largest enough each per
        altogether remember recall above below obtain obtained follows following write writes written work working
        works out try using used uses take takes taking move moving bring subtracts carry borrow ones tens units let's
        i'm it's don't doesn't that's we're can't isn't we'll i'll there's what's cannot so am man rest plus minus
        word words called means opposite capital country colour color english german language say says sentence
        """,
    "de": """
        der die das den dem des ein eine einen einem einer eines und oder aber ist sind war waren sein seine seiner
        hat haben hatte wird werden wurde wurden kann können konnte muss müssen soll sollen will wollen darf nicht
        kein keine keinen mit von vom zu zum zur auf aus bei beim nach über unter vor für durch gegen ohne um an am im
        in ins als wie wenn weil dass daß ob denn doch noch schon nur auch sehr mehr viel viele wenig alle alles jeder
        jede jedes jeden dieser diese dieses diesen diesem jener welche welcher welches was wer wo wann warum wieso
        wir ihr ihre ihrer ich du er sie es man mich dich sich uns euch ihm ihn ihnen mein meine dein unser hier dort
        da dann danach zuerst zunächst erst erstens zweitens drittens jetzt nun also deshalb daher darum damit somit
        folglich schließlich schliesslich zuletzt weiter weiterhin wieder immer nie nun gut ja nein eins zwei drei
        vier fünf sechs sieben acht neun zehn elf zwölf zwanzig dreißig hundert tausend null halb doppelt ergebnis
        ergebnisse antwort lösung lösungen aufgabe frage schritt schritte gleichung gleichungen ausdruck rechnung
        rechnen rechne rechnet berechnen berechne berechnet addieren addiere addiert subtrahieren subtrahiere
        subtrahiert multiplizieren multipliziere multipliziert dividieren dividiere dividiert teilen teile teilt
        geteilt mal gleich ergibt ergeben bleibt bleiben zahl zahlen ziffer ziffern summe differenz produkt quotient
        rest wert werte lösen löse löst gelöst gesucht gegeben bringen bringe seite seiten beide beiden beidseitig
        abziehen ziehe abzug hinzu dazu zusammen insgesamt größer kleiner weniger prüfen prüfe probe überprüfen stimmt
        richtig falsch moment warte nochmal einmal zweimal fehler bruch brüche nenner zähler wurzel quadrat klammer
        klammern auflösen umstellen umformen einsetzen setze setzen bekommen bekomme erhalten erhalte erhält schreiben
        schreibe heißt heisst bedeutet gilt sei nämlich etwa ungefähr zwischen anfang ende anfangen beginnen beginne
        beginnt macht machen nehmen nehme nimmt geht gehen kommt kommen sehen sieht wissen weiß denken denke
        nachdenken überlegen so plus minus wort wörter hauptstadt gegenteil deutsch englisch sprache
        """,
    "fr": """
        le la les un une des du de et ou mais est sont était être avoir ai as avons avez ont a il elle ils elles nous
        vous je tu on ce cet cette ces mon ma mes son sa ses notre votre leur leurs qui que quoi dont où quand comment
        pourquoi combien dans sur sous avec sans pour par entre vers chez depuis pendant avant après ne pas plus moins
        très trop aussi encore déjà toujours jamais rien tout tous toute toutes chaque autre même alors donc ainsi
        puis ensuite enfin finalement premièrement deuxièmement abord car parce si oui non deux trois quatre cinq sept
        huit neuf dix cent mille zéro réponse résultat solution problème calcul calculer calculons ajouter ajoutons
        soustraire soustrayons multiplier multiplions diviser divisons égal égale égaux somme différence produit
        nombre chiffre étape équation côté côtés reste vérifier vérifions correct obtient obtenons trouve trouvons
        fait faire faut peut doit soit voici cela ça celui celle
        """,
    "es": """
        el la los las un una unos unas de del y o pero es son era ser estar está están fue ha han hay tiene tienen yo
        tú él ella ellos ellas nosotros usted ustedes mi tu su sus nuestro este esta estos estas ese esa eso que qué
        quien cual cuál cuando cuándo donde dónde como cómo porque por para con sin sobre entre desde hasta en a al no
        sí más menos muy también todavía ya siempre nunca nada todo todos toda todas cada otro otra mismo entonces así
        luego después finalmente primero segundo tercero primera antes ahora si uno dos tres cuatro cinco seis siete
        ocho nueve diez cien mil cero respuesta resultado solución problema calcular calculamos sumar sumamos restar
        restamos multiplicar multiplicamos dividir dividimos igual suma resta diferencia producto número números
        dígito paso pasos ecuación lado lados comprobar verificar correcto obtenemos tenemos hacemos hacer puede debe
        sea
        """,
    "it": """
        il lo la i gli le un uno una di del della dei delle e o ma è sono era essere avere ho hai ha abbiamo avete
        hanno io tu lui lei noi voi loro mio mia tuo suo sua nostro questo questa questi queste quello quella che chi
        cosa quando dove come perché quanto quanti in con su per tra fra da dal dalla al alla nel nella sul sulla non
        più meno molto anche ancora già sempre mai niente tutto tutti tutta ogni altro altra stesso allora quindi così
        poi dopo infine finalmente prima primo secondo terzo adesso ora se sì no due tre quattro cinque sei sette otto
        nove dieci cento mille zero risposta risultato soluzione problema calcolare calcoliamo sommare sommiamo
        sottrarre sottraiamo moltiplicare moltiplichiamo dividere dividiamo uguale somma differenza prodotto numero
        numeri cifra passo passi equazione lato lati verificare corretto otteniamo abbiamo facciamo fare può deve sia
        """,
}


def _lexicon() -> Mapping[str, frozenset[str]]:
    languages: dict[str, set[str]] = {}
    for language, text in _LISTS.items():
        for word in text.split():
            languages.setdefault(word, set()).add(language)
    return {word: frozenset(found) for word, found in languages.items()}


LATIN_LANGUAGES = tuple(_LISTS)
LEXICON: Mapping[str, frozenset[str]] = _lexicon()  # word in lower case -> the languages that have it
