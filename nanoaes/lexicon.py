"""The words by which critiques speak of the dimensions, praise, criticise and judge; English.

Patterns for lower case. Of judging there are two kinds: how a picture as a whole is judged
(`GOOD`, `FAIR`, `BAD`), and what is said of its parts (`PRAISE`, `BLAME`, which hold the former,
too). In the lists `~` stands for any ending, `_` for a blank or a hyphen. Left out: words that only
describe ("soft", "quiet", "dark"), so that a description is neither.
"""

import re

from nanoaes.prompt import DIMENSIONS


def _any(words: str) -> str:
    return "|".join(words.replace("~", r"\w*").replace("_", r"[\s-]").split())


_HUE = _any(r"""
    red orange yellow green blue violet purple pink magenta cyan teal turquoise brown ochre
    ultramarine beige gold amber crimson scarlet indigo emerald jade rust slate sepia mint
    mahogany ivory peach coral apricot lime moss azure lavender maroon copper cream gray grey""")
_LIGHT = _any(r"""
    (?<!in_)light(?!_of\b|_touch\b|-hearted|_HUE\b)\b lights lighting lit(?!_windows) unlit
    (?:sun|candle|day|moon|side|twi|window|torch|lamp|fire|front|star|street|top|rim)_?light~
    \w+lit back-?light~ spotlights? shadow~ shaded?(?!_more) chiaroscuro contre-jour flash
    strobes? illuminat~ golden_hour glow(?:s|ing)? shafts beams? sun_rays
    (?:evening|morning|midday|late|low|noon|setting|harsh|hard|the|of|a)_sun sunbeams? afterglow
    dusk dawn silhouett~
    (?<!in_)(?<!by_)(?<!color_)(?<!colour_)contrast(?:s|y)?(?!_\w+_(?:cold|warm|colou?r))
    gradation hot_spots? l['’]heure_bleue (?:videographer|studio|desk|table|ceiling)['’]?s?_lamps?
    sodium_lamps hard_light""")
_MOOD = _any(r"""
    mood~ atmospher~ story stories storied storytelling narrat\w+ tells?_(?:us|of|a) told tale
    emotion~ feelings?(?!_for) sentiment~ melanchol~ joy~ seren\w+ nostalg~ lonel~ solitude
    myster\w+ tender~ evok~ evocat~ poignan~ peaceful~ tranquil~ calm~ intima\w+ romantic
    (?<!good-)humou?r~ witty joke themes? touching lifeless smil\w+ laugh~
    (?:facial|her|his|their|the)_expressions? expressive tension_of whisper~ enchant\w+ dignity
    affection~ warmth_(?:with|of|between|in) such_warmth (?<!for_)drama dramatic sad sadness
    happiness anxiety longing spirit soul sense_of_(?!scale|depth|balance|space|rhythm) suggests
    hints?_at (?<!at_the_)(?<!for_the_)(?<!such_a_)moments? instant heartfelt contempl\w+ silence
    silent gloom~ majest\w+ authentic~ bustl\w+ heartwarming gesture meaningless playful~ dreamy
    dreamlike eerie hope grief tense cosy cozy vitality heart passion~ suspense
    moves?_(?:me|us|you|one) gaze_is symbol~ metaphor~ convey~ touched emotionally fatigue bored
    tension(?!_of) expressions?""")
_COMPOSITION = _any(r"""
    composition~ composed framing framed crop~ cut_(?:off|at) leading_lines? rule_of_thirds
    diagonals? a?symmetr~
    (?<!white_)(?<!color_)(?<!colour_)(?<!tonal_)balanced?(?!_exposure|_tones|,_no) unbalanced
    imbalance equilibrium lopsided horizon~ (?:negative|empty)_space perspective vanishing placed
    placement placing cent(?:red|ered|ering) off-cent\w+
    (?:dead|at_the|in_the)_(?:cent(?:re|er)|middle)(?!_of_the_field) arrang\w+ geometr\w+ clutter~
    uncluttered crowd(?:s|ed|ing)? the_eye our_eyes? the_gaze viewer's_eye
    (?:upper|left|right)(?:-hand)?_(?:third|corner|edge|border) lower_(?:left|right|edge)
    proportions hierarchy focal_point viewpoint vantage (?:low|high|camera)_angle ground_level
    frames?_within triang\w+ distract~ foreground back(?:ground|drop) clean_lines divided
    visual_(?:weight|path|flow) (?:lines?|paths?|curves?)_(?:of|lead|draw|guide|carr|pull)~
    s-curve plonked rhythm~ lined?_up rows_of arc bisect~ margin asymmetrical layer(?:s|ed|ing)
    (?:of|through|inside|within|fills?|leaves?|enters?|outside)_the_frame the_frame_(?:ends|edge)
    picture_plane spac(?:ing|ed) tangent offset third_line angle_from half_hidden repetition
    patterns? (?:left|right|bottom|top|lower|upper)_(?:third|left|right) gr(?:ows?|owing)_out_of
    sweeping converg\w+ leaving_the_frame juxtapos\w+ skyline too_much_going_on cut_by
    in_the_frame leans leaning pose chopped (?:to|from|at)_the_(?:border|edge) room_to""")
_COLOR = _any(r"""
    colou?r~ hues? palettes? ~saturat\w+ white_balance monochrom~ duotone HUEs sepia complementary
    black_and_white tint~ pastels? chromatic~ toning garish gaudy
    (?:warm|cool|skin|earth|earthy|cold|golden|gr[ae]y|natural)_tones? warm_and_co(?:ld|ol)
    co(?:ld|ol)_and_warm HUE_(?:tones?|cast|accents?) warm_HUE (?:warm|cool)_world
    of_(?:amber|jade|ochre|gold) \w+_tinge reddish bluish greenish yellowish
    (?P<hue>HUE)\b[^.;]{0,80}\b(?!(?P=hue))HUE(?!_flowers) sugary screaming_HUE navy
    turned_HUE(?!_eyes)""")
_EXPOSURE = _any(r"""
    ~-?expos(?:ure~|ed) blown(?:_out)? clip(?:ped|ping) burn(?:t|ed)_?(?:out)? dynamic_range
    tonal_(?:range|values?|scale|distribution) tonality mid-?tones? histogram too_(?:dark|bright)
    blocked crushed blacks blackness whites_(?:are|keep|hold|of) pure_white
    shadow_(?:detail|regions)
    details?_in_(?:the_|both_)?(?:deep_|deepest_|bright_)?(?:shadow|highlight|dark|white)~
    (?:full|los\w+|retain\w*)_(?:\w+_)?details? high-key low-key featureless
    (?:every|rich|full|darkest|brightest)_tones? dark_areas
    keeps?_(?:its|their|every|all)_(?:texture|detail)
    (?:\w+|,)_highlights?(?!_(?:the|a|an|his|her|its|their|how|that|this)\b)
    highlights_(?:are|is|survive|hold|keep|remain|clip|on|in|of) stops?_too hdr tone-?mapp\w+
    nearly_washed_out keeps_both
    (?:retains?|keeps?|holds?|kept|retained)_(?:\w+_){0,2}(?:texture|detail)~ exposing
    about_to_clip no_detail""")
_GOOD = _any(r"""
    strong stronger strongest excel~ outstanding superb~ brilliant~ master(?:ful~|ly|y|piece)
    wonder(?:ful~)? beautiful~ beauty gorgeous~ stunning~ breathtaking~ remarkabl~ impressive~
    impresses compelling~ captivat~ enchant~ evocative~ delight~ exquisite~ magnificen~
    magic(?:al~)? marvel~ splendid~ striking~ memorabl~ exceptional~ extraordinar~ terrific
    fantastic great~ (?:first|top|world)_(?:rate|class|notch) accomplish~ succe(?:ed|eds|eeding)
    success(?:ful~|es)? triumph~ powerful~ moving good fine finest nice lovely charm~ winning
    reward(?:s|ing|ed) flawless~ perfect perfectly perfection mature confident~ distinguished
    distinctive distinction satisfying sublime~ arresting~ gripping unforgettable poetic
    recommend~ admirabl~ high_quality works
    well_(?:made|crafted|executed|seen|done|composed|judged|controlled|handled|balanced|conceived)
    inspired inspiring elegan~ engag(?:ing~|es) mesmeri~ spectacular~ vivid~ polish(?:ed)?
    exemplary gem treat please[sd]? bravo falls_into_place
    worth_(?:keeping|framing|hanging|a_second) effective~ energetic professional~ pays_off appeal
    appealing~ merits? aesthetic_value artistic_value impact achievement achieves impeccabl~
    faultless~ glorious~ refined sophisticat~ skill~ skilful~ expert~ haunting~ resonan~
    stands?_out standout above_average commendabl~ noteworthy original imaginat~ creative~ artful~
    laudable pleasure love[sd]? loveliest at_its_best best stays_with bold ambitious convincing~
    convinces thrilling tasteful~ thoughtful~ seductive radiates splendou?r virtuos~ ravishing
    heartfelt fascinat~ outclasses treasure jewel high_standard compliments? credit convince
    impress lasting_impression enthral~ enthral romantic hang_it exhibition wow bravura first_rate
    treasured grows_on_you ten_times textbook_example masterclass keeper masterstroke superior
    amazing incredible awesome majestic soulful a_delight a_joy noble majesty first_order
    highest_order unmatched sensational pristine exhilarating riveting astonishing phenomenal
    enviable deserves?""")
_FAIR = _any(r"""
    fair average mediocr~ middling ordinary decent~ acceptabl~ adequate~ competent~ passabl~
    reasonabl~ unremarkable so_so okay ok conventional unspectacular unexciting tolerabl~
    serviceable moderate~ modest~ run_of_the_mill middle_of_the_(?:road|field|pack) mixed
    half_(?:a_)?success nothing_more no_more pleasant standard unexceptional halfway partly
    partially respectabl~ workmanlike uneven potential routine nothing_special
    could_be_(?:much_)?more compromise fairly forgivable presentable promis(?:e|ing) slight
    satisfactory sufficient alright all_right (?:stops?|just|slightly|only_just)_short in_between
    typical usual everyday unambitious not_(?:quite|entirely|fully) enough harmless inoffensive
    safe semi_successful half_hearted neutral commonplace informative familiar not_much_more
    unsurprising sound workable so_far_so_good indifferent_quality no_better_nor_worse
    halfway_there nothing_out_of_the_ordinary generic plain unassuming satisfying_enough
    good_enough""")
_BAD = _any(r"""
    weak weaker weakest poor poorly bad badly fail(?:s|ed|ing|ure)? unsuccessful~ disappoint~
    dull~ pointless meaningless forgettable uninspir~ bor(?:ing|edom) careless~ amateurish awful
    terribl~ horribl~ ugly unattractive lifeless sloppy miss(?:es|ed)_the_mark missed clumsy
    worthless hopeless uninteresting unappealing inept mess messy dreadful hard_to_look_at
    nothing_to_(?:offer|say) no_redeeming reject~ throwaway waste[sd]? lacklust~ unsatisf~ ruin~
    spoil~ let_downs? lets?_down falls_(?:flat|apart)
    falls?_(?:well_|far_|rather_|somewhat_)?short unpleasant dreary inferior deplorable defeat~
    collapses? trite clich~ hasty hastily unusable low inadequa~ deficien~ dire
    (?:much|a_lot|a_great_deal)_to_be_desired below_average (?:does|do)_not_(?:work|succeed)
    (?:doesn.t|don.t|didn.t)_(?:work|succeed) hate[sd]? mistake pedestrian insignificant shoddy
    unworthy substandard sub_par subpar offers_nothing nothing_here misfire~ muddled misjudged
    discard~ delete[sd]? irredeemabl~ beyond_(?:saving|rescue|repair) botched worst for_the_bin
    going_for_it least_\w+ mush tedious tiresome unconvincing regrettable not_worth nothing_new
    eyesore inexcusable disaster~ abysmal appalling atrocious lousy crude crass crap rubbish
    garbage trash junk would_not_keep wouldn.t_keep not_a_keeper unfortunate unremarkably flop dud
    mishap failure_of laughable embarrassing woeful pitiful miserable unprofessional
    does_not_come_off (?:doesn.t|don.t)_come_off not_deserve deserves?_no""")
_PRAISE = _any(r"""
    poised harmon~ rich~ radiant~ luminous~ sculpt~ carve[sd]? lively storied faithful~
    even_exposure well well-\w+ precis~ exact~ clean~ crisp~ nicely attractive~ pleasing~
    pleasant~
    (?!aw|pain|doubt|harm|hand|fear|waste|distaste|unsuccess|dread|regret|fright|shame|un|mourn)\w+ful(?:ly)?
    clever~ tender~ grace dignity expressive~ atmospheric~ joy gentl[ey] lovingly interesting~
    intriguing~ warmth serene~ serenity witty natural~ restrain~ subtle subtly sensitiv~
    enhance[sd]? enrich~ helps? draws? guides? leads? anchors? separates? lifts? carries alive
    brings_out full_of_life suits? line_up neatly orderly agreeabl~ pretty sparkl~ touching~
    poignan~ delicate~ generous~ fortunate~ strengths? strengthens? benefits? appreciat~ admir~
    i_like enjoy~ flatter(?:s|ing) spot_on correct~ survives? holds? feeling intact timing texture
    depth dimension~ drama dramatic~ myster~ intima~ dynamic~ energy vibran~ lush
    satisf(?:ies|ied) fits? supports? underlines? convey(?:s|ing)? authentic~ honest~ detail_in
    detail_even full_detail retains? unif(?:ied|ies) cohes~ coheren~ ease effortless~ inviting~
    invites? fresh~ sharp~ humou?r purposeful~ deliberate~ controlled friendly geometry_rules
    interest tidy simplicity bathe[sd]? complements? complementary enliven~ evok~ creates?
    lend(?:s|ing)? adds? gives rhythm majest~ grand~ illuminat~ clarity instant true accentuat~
    emphasi[sz]~ reveals? contemplative tangible broad volume sense_of nuance[sd]? smooth~ velvety
    pleas(?:es|ed) seamless~ timeless accura~ ideal~ right(?:ly)?_(?:instant|moment) justice tight
    lyrical frames_the interplay immers~ sincer~ vital~ accomplished fluid sumptuous~ immediacy
    presence pull(?:s|ed)_us attention_to unity fluent melodious economical spontane~
    keeps_(?:its|their|every|all|the) balances(?!_on) glow glows(?!_like) useful pops promising
    intens~ weight_to intelligent plausible legible sensible generat~ treasure cute feast profits?
    attractive reverent variety depth_to lovely balanced (?<!white_)(?<!white\s)balance
    catches_the_eye eye_catching exuberant lends brighten~ flow flows flowing airy expans~
    spacious grounded anchored rhythm~ compact textured tactile cinematic painterly soulful
    feels_(?:natural|real|alive) trac(?:es|ing) freezes preserve[sd]? preserves open_shadows
    legib~ lucid jewel_like velvet silky melod~ eloquent~ suggestive telling memorably hypnotic
    mood_suits well_placed easily pays reinforces? sustains? supportive maximi[sz]es optimal~
    separated separation pleasantly unifies coheres sings resonates evocative~ warmly wonderful
    mellow inspired clear clearly room_to mastered contagious fresh pure secrets shine[sd]?
    thrives? supplies say_everything says_everything works_well draws_us right_decision
    without_fault ingredients rare rewarding_to helps_the plays_well delivers? accent_(?:on|of)
    good_use clever_use meaningful contributes? complement~ credible succeed~""")
_BLAME = _any(r"""
    flat~ lopsided~ tilt(?:ed|s) clash~ garish~ clip(?:ped|ping|s) harsh~ mudd~ murky
    clutter(?:ed)? distract~ lack(?:s|ing|ed)? empt(?:y|iness) vacant robs? robbed over-?expos~
    under-?expos~ blown burnt burned blocked crushed over-?saturat~ over-?process~ over-?sharpen~
    washed_out awkward~ cramped crowd(?:ed|s)? busy chaotic jumble~ confus~ vague~ stiff~ forced
    artificial~ staged noise noisy grainy blurred blurry out_of_focus unsharp soft_focus pity
    regret~ weakness~ weakens? flaw flaws flawed problem~ cut_(?:off|at) cuts? cropped pushed
    gaudy sickly drab~ static monoton~ repetiti~ compet(?:es|ing|ition) fights? struggle[sd]?
    los[et] loses losing predictabl~ overly superfluous disturb~ detract~ undermin~ hinder~
    suffer~ superficial impersonal indifferent generic obscure[sd]? imbalance~ skewed crooked
    slop(?:es|ing) uneasy strained uneven overdone heavy_handed wish(?:es|ed)? could_(?:be|have)
    would_(?:help|have|be|gain|benefit) should_(?:be|have) might_(?:have|better)
    less_(?:fortunate|convincing|successful|so) accidental~ plonked alas wrong~ incorrect~ errors?
    tired sad vain kitsch~ drifts? undecided merg(?:es|ing) growing_out_of bluish cast limited
    nothing_happens nowhere stray intru~ interrupt~ jarring~ conflict~ weighs? overpower~
    overwhelm~ drown~ swallow~ invisibl~ hides? banal mechanical~ dreary gloomy halos painful~
    radioactive wears?_thin mar(?:s|red) blemish~ reservation defects? squeez~ squashed sinks?
    intersects? merely missing absen~ hot_spots? slightly_hot a_(?:little|touch|bit|shade)
    withhold~ spoil~ tangled bisects? slack heavy clums~ abrupt~ half_closed shaky poor~ ill_\w+
    reduced_to artefacts? artifacts? banding halo smear~ smudg~ gimmick~ overused overcook~ oddly
    odd rigid~ dated hampers? dilut~ fragment~ disconnect~ disjoint~ disrupt~ dissonan~ discord~
    disorgani~ incoheren~ inconsisten~ insufficien~ ineffective inexpressive indistinct imprecise
    impair~ mis\w+(?:ed|ing)
    (?:lifeless|featureless|shapeless|colou?rless|senseless|aimless|tasteless|motiveless)~
    un(?!der|it|if|io|iq|iv|usual|til|less|clutter|obtrus|den|forced|fold|mistak|spoil|forget|pretent|disturb|expect|waver|mist|hurried|erring|ob)\w{4,}
    yet_to only_just leaves_(?:little|something|much) no_one weary bland~ tepid insipid anaemic
    anemic work(?:s|ing)?_against too(?=\s\w) chopped blank jammed synthetic adds_nothing
    nothing_new mid-blink grows_out_of loses_out flare wip(?:es|ed)_out half_hidden tinge smeared
    berserk ugly spread_evenly annoy~ irritat~ bothers? bothersome nuisance
    (?:almost_)?touches_the_(?:border|edge|frame|top|left|right) similar_to leaves_us_cold stale
    worn formulaic derivative hackneyed copycat seen_(?:it|this)_before ordinary unlovely
    pulls?_attention_away steals? steal draws_attention_away distracted washed cheesy saccharine
    mawkish overblown blotch~ patchy uncomfortable ungainly slanted askew leaning tilting
    off_level cutting slicing amputat~ sliced truncated decapitat~ ghosting fringing moir\w+
    vignetting haze hazy dirty stained yellowish greenish sallow cold_and aloof unengaging
    slightly_dark slightly_bright rather_dark dark_corners loss_of lost_in disappears?
    vanish(?:es)? buried indecisive half_baked unfinished incomplete lopped kills? killed
    do_without outside_the_frame eyesore boosted screaming sugary manipulat~ bored faulty loose
    enters_from leans to_the_point_of at_the_expense so_close_to hardly_any
    a_lot_of_(?:noise|clutter|grain) sleepy burdened afraid hit-and-miss better_to noticeabl~
    however_minor cardboard excessive~ bare_(?:foreground|background|left|right)""")


def _whole(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{pattern})(?![\w-])")


GOOD, FAIR, BAD = _whole(_GOOD), _whole(_FAIR), _whole(_BAD)
PRAISE, BLAME = _whole(f"{_GOOD}|{_PRAISE}"), _whole(f"{_BAD}|{_BLAME}")
SPEAKS = {name: re.compile(rf"\b(?:{words})(?!\w)".replace("HUE", f"(?:{_HUE})"))
          for name, words in zip(DIMENSIONS, (_LIGHT, _MOOD, _COMPOSITION, _COLOR, _EXPOSURE),
                                 strict=True)}
